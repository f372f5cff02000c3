//! Epochs and leases in the ledger, the same facts on SQLite and on PostgreSQL.

use std::sync::Arc;

use seckill::{
    lease::{Lease, Redlock, RowLease},
    ledger::{LedgerError, REBUILD, RECONCILE, Raised, Restock, Settled},
    sale::Sale,
};
use stock::{OrderState, redis::RedisOptions};
use testkit::redis;

use crate::support::ledger::{
    Engine, T0, TestLedger, eventually, on_both_engines, order, order_id, sale, sale_id, segment,
};

on_both_engines! {
    orders_of_an_older_epoch_are_not_settled,
    an_epoch_is_raised_only_by_the_holder_of_the_newest_token,
    an_epoch_grows_beyond_what_the_store_has,
    a_settlement_under_way_ends_before_the_epoch_is_raised,
    the_orders_of_a_segment_are_paged_in_their_states,
    restocks_are_shared_by_the_segments_of_a_sku,
    transfers_move_stock_once_they_have_begun,
    one_node_at_a_time_holds_the_lease,
}

async fn token(test: &TestLedger) -> u64 {
    test.ledger.next_token(REBUILD, "tests").await.unwrap()
}

async fn opened(engine: Engine, stock: u64) -> TestLedger {
    let test = TestLedger::with_sale(engine, stock).await;
    test.ledger.mark_opened(&segment(), T0).await.unwrap();
    test
}

/// INV-EPOCH-1: the rebuild has read them already; settling them later would sell their units twice.
async fn orders_of_an_older_epoch_are_not_settled(engine: Engine) {
    let test = opened(engine, 9).await;
    let token = token(&test).await;
    test.settle_new(1, 1).await;
    let raised = test.ledger.raise_epoch(&segment(), 0, token).await;
    assert_eq!(raised.unwrap(), Raised::To(2));
    let late = test.ledger.settle(&segment(), 1, &[order(2, 1)], T0).await;
    assert!(
        matches!(late, Err(LedgerError::StaleEpoch { epoch: 1, .. })),
        "{late:?}"
    );
    assert_eq!(test.shoe().await.sold, 1);
    let rescued = test.ledger.settle(&segment(), 2, &[order(2, 1)], T0).await;
    assert_eq!(rescued.unwrap(), [Settled::Settled]);
    assert_eq!(
        test.ledger.epochs_of(&[&segment().sale]).await.unwrap()[&segment()],
        2
    );
}

async fn an_epoch_is_raised_only_by_the_holder_of_the_newest_token(engine: Engine) {
    let test = opened(engine, 9).await;
    let old = token(&test).await;
    let new = token(&test).await;
    assert!(new > old);
    let raise = async |token| test.ledger.raise_epoch(&segment(), 0, token).await.unwrap();
    assert_eq!(raise(old).await, Raised::LeaseLost);
    assert_eq!(
        test.ledger.epochs_of(&[&segment().sale]).await.unwrap()[&segment()],
        1
    );
    assert_eq!(raise(new).await, Raised::To(2));
    let unopened = Sale {
        segments: 2,
        ..sale(1)
    }
    .segments_of(&segment().sku)
    .swap_remove(1);
    let raised = test.ledger.raise_epoch(&unopened, 0, new).await.unwrap();
    assert_eq!(raised, Raised::NeverOpened);
}

async fn an_epoch_grows_beyond_what_the_store_has(engine: Engine) {
    let test = opened(engine, 9).await;
    let token = token(&test).await;
    let raise = async |above| {
        test.ledger
            .raise_epoch(&segment(), above, token)
            .await
            .unwrap()
    };
    assert_eq!(raise(7).await, Raised::To(8));
    assert_eq!(raise(3).await, Raised::To(9));
}

/// Either it is read by the rebuild or it never happens.
async fn a_settlement_under_way_ends_before_the_epoch_is_raised(engine: Engine) {
    let test = opened(engine, 1_000).await;
    let token = token(&test).await;
    let ledger = test.ledger.clone();
    let settling = tokio::spawn(async move {
        let mut settled = Vec::new();
        for n in 1..=200 {
            match ledger.settle(&segment(), 1, &[order(n, 1)], T0).await {
                Ok(_) => settled.push(order_id(n)),
                Err(LedgerError::StaleEpoch { .. }) => return settled,
                Err(error) => panic!("{error}"),
            }
        }
        settled
    });
    // Not before the first one is through, so that the two really meet.
    eventually("an order is settled", async || {
        test.ledger.order_count(&segment()).await.unwrap() > 0
    })
    .await;
    let raised = test.ledger.raise_epoch(&segment(), 0, token).await.unwrap();
    assert_eq!(raised, Raised::To(2));
    let seen = test
        .ledger
        .segment_orders(&segment(), None, 1_000)
        .await
        .unwrap();
    let seen: Vec<_> = seen.iter().map(|order| order.order).collect();
    assert_eq!(settling.await.unwrap(), seen);
}

async fn the_orders_of_a_segment_are_paged_in_their_states(engine: Engine) {
    let test = opened(engine, 9).await;
    test.settle_new(1, 3).await;
    let cancelled = order(2, 1);
    test.ledger
        .cancel(cancelled.order, &cancelled.buyer, T0)
        .await
        .unwrap();
    let first = test
        .ledger
        .segment_orders(&segment(), None, 2)
        .await
        .unwrap();
    let rest = test
        .ledger
        .segment_orders(&segment(), Some(first[1].order), 2)
        .await
        .unwrap();
    let stored: Vec<_> = first
        .iter()
        .chain(&rest)
        .map(|row| row.as_stored())
        .collect();
    let mut expected = [order(1, 1), order(2, 1), order(3, 1)];
    expected[1].state = OrderState::Released;
    assert_eq!(stored, expected);
}

async fn restocks_are_shared_by_the_segments_of_a_sku(engine: Engine) {
    let test = TestLedger::new(engine).await;
    let cut = Sale {
        segments: 3,
        ..sale(9)
    };
    test.ledger.create_sale(&cut, T0).await.unwrap();
    let restock = Restock {
        sku: segment().sku,
        id: "more".to_owned(),
        units: 5,
    };
    test.ledger.restock(&sale_id(), &restock, T0).await.unwrap();
    let mut units = Vec::new();
    for id in cut.segments_of(&segment().sku) {
        let moves = test.ledger.stock_moves(&cut, &id).await.unwrap();
        assert_eq!(moves.restocks.len(), 1);
        units.push(moves.restocks[0].1);
    }
    assert_eq!(units, [2, 2, 1]);
}

/// What was never taken stays; what was taken is gone at the source and there at the destination.
async fn transfers_move_stock_once_they_have_begun(engine: Engine) {
    let test = TestLedger::new(engine).await;
    let cut = Sale {
        segments: 2,
        ..sale(9)
    };
    test.ledger.create_sale(&cut, T0).await.unwrap();
    let [source, destination] = cut.segments_of(&segment().sku).try_into().unwrap();
    test.ledger.mark_opened(&source, T0).await.unwrap();
    for (id, state) in [("t1", "done"), ("t2", "pending")] {
        let insert = format!(
            "INSERT INTO sale_transfers (transfer_id, sale, sku, source, destination, units, state, created_at_ms) \
             VALUES ('{id}', 'spring', 'shoe', 0, 1, 4, '{state}', 0)"
        );
        sqlx::query(sqlx::AssertSqlSafe(insert))
            .execute(test.ledger.pool())
            .await
            .unwrap();
    }
    let token = token(&test).await;
    test.ledger.raise_epoch(&source, 0, token).await.unwrap();
    let left = test.ledger.stock_moves(&cut, &source).await.unwrap();
    assert_eq!(
        left.withdrawals,
        [("t1".to_owned(), 4), ("t2".to_owned(), 0)],
        "a transfer that had not begun is called off"
    );
    let arrived = test.ledger.stock_moves(&cut, &destination).await.unwrap();
    assert_eq!(arrived.restocks, [("t1".to_owned(), 4)]);
}

fn row(test: &TestLedger, work: &'static str, owner: &str) -> RowLease {
    RowLease::new(work, test.ledger.clone(), test.clock(), owner.to_owned())
}

async fn one_node_at_a_time_holds_the_lease(engine: Engine) {
    let test = opened(engine, 1).await;
    let lease = |owner: &str| row(&test, REBUILD, owner);
    let (mut one, mut other) = (lease("one"), lease("other"));
    let first = one.hold().await.unwrap().expect("nobody else wants it");
    assert_eq!(one.hold().await.unwrap(), Some(first), "it is kept");
    assert_eq!(other.hold().await.unwrap(), None);
    one.give_up().await.unwrap();
    let second = other.hold().await.unwrap().expect("it was given back");
    assert!(second > first);
    assert_eq!(one.hold().await.unwrap(), None);
    let raised = test.ledger.raise_epoch(&segment(), 0, first).await.unwrap();
    assert_eq!(raised, Raised::LeaseLost);
}

#[tokio::test]
async fn a_lease_of_a_dead_process_runs_out_each_by_its_time() {
    for (work, lasts_ms) in [(REBUILD, 4_000), (RECONCILE, 30_000)] {
        let test = opened(Engine::Sqlite, 1).await;
        let mut dead = row(&test, work, "dead");
        let first = dead.hold().await.unwrap().unwrap();
        let mut next = row(&test, work, "next");
        test.advance(lasts_ms - 1);
        assert_eq!(next.hold().await.unwrap(), None);
        test.advance(1);
        assert!(next.hold().await.unwrap().unwrap() > first);
        // The dead one wakes up, and is not believed.
        assert_eq!(dead.hold().await.unwrap(), None);
    }
}

/// Broke: a lease was renewed at every look of its holder, one commit a second.
#[tokio::test]
async fn a_lease_is_renewed_in_the_second_half_of_its_term_only() {
    for (work, lasts_ms) in [(REBUILD, 4_000), (RECONCILE, 30_000)] {
        let test = opened(Engine::Sqlite, 1).await;
        let until_ms = async || {
            let until = sqlx::query_scalar("SELECT until_ms FROM sale_leases WHERE name = $1");
            let until: i64 = until
                .bind(work)
                .fetch_one(test.ledger.pool())
                .await
                .unwrap();
            until as u64
        };
        let began = test.now_ms();
        let mut holder = row(&test, work, "one");
        let token = holder.hold().await.unwrap();
        assert!(token.is_some());
        test.advance(lasts_ms / 2 - 1);
        assert_eq!(holder.hold().await.unwrap(), token);
        assert_eq!(until_ms().await, began + lasts_ms, "nothing was written");
        test.advance(1);
        assert_eq!(holder.hold().await.unwrap(), token);
        assert_eq!(until_ms().await, test.now_ms() + lasts_ms);
        // A clock that went back says nothing of the term.
        test.advance(lasts_ms - 1);
        assert_eq!(holder.hold().await.unwrap(), token, "it is still its own");
        holder.give_up().await.unwrap();
        let next = row(&test, work, "two").hold().await.unwrap();
        assert!(next > token);
        assert_eq!(holder.hold().await.unwrap(), None, "given up is not held");
    }
}

// On PostgreSQL the clock is the server's, so the row is aged instead.
#[tokio::test]
async fn a_lease_on_postgres_runs_out_by_the_servers_clock_whatever_the_nodes_say() {
    let test = opened(Engine::Postgres, 1).await;
    let mut dead = row(&test, REBUILD, "dead");
    let first = dead.hold().await.unwrap().unwrap();
    let mut next = row(&test, REBUILD, "next");
    test.advance(3_600_000);
    assert_eq!(
        next.hold().await.unwrap(),
        None,
        "only its own clock is ahead"
    );
    let age = "UPDATE sale_leases SET until_ms = until_ms - 10000";
    sqlx::query(age).execute(test.ledger.pool()).await.unwrap();
    assert!(next.hold().await.unwrap().unwrap() > first);
}

// Behind a pooler each transaction may have another session: a lease must not hang on one.
#[tokio::test]
async fn a_lease_on_postgres_outlives_every_session() {
    let test = opened(Engine::Postgres, 1).await;
    let mut holder = row(&test, REBUILD, "one");
    let first = holder.hold().await.unwrap().unwrap();
    let end = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    sqlx::query(end).execute(test.ledger.pool()).await.unwrap();
    let mut next = row(&test, REBUILD, "two");
    let mut kept = None;
    eventually("the ledger answers again", async || {
        kept = next.hold().await.ok();
        kept.is_some()
    })
    .await;
    assert_eq!(kept, Some(None), "another session, the same holder");
    eventually("the holder keeps it", async || {
        holder.hold().await.is_ok_and(|token| token == Some(first))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_majority_of_redis_servers_elects_and_a_dead_minority_does_no_harm() {
    let test = opened(Engine::Sqlite, 1).await;
    let mut servers = [(); 3].map(|()| redis::Server::start(&[]));
    let urls: Vec<String> = servers.iter().map(redis::Server::url).collect();
    let lease = |owner: &str| {
        let options = RedisOptions::default();
        Redlock::try_new(test.ledger.clone(), &urls, options, owner.to_owned()).unwrap()
    };
    servers[2].kill();
    let (mut one, mut other) = (lease("one"), lease("other"));
    let first = one
        .hold()
        .await
        .unwrap()
        .expect("two of three are a majority");
    assert_eq!(one.hold().await.unwrap(), Some(first));
    assert_eq!(other.hold().await.unwrap(), None);
    one.give_up().await.unwrap();
    let second = other.hold().await.unwrap().expect("it was given back");
    assert!(second > first);
    servers[1].kill();
    assert_eq!(
        other.hold().await.unwrap(),
        None,
        "one of three is no majority"
    );
}

#[tokio::test]
async fn tokens_only_grow_whoever_draws_them() {
    let test = opened(Engine::Postgres, 1).await;
    let ledger = Arc::new(test.ledger.clone());
    let draws = (0..8).map(|n| {
        let ledger = ledger.clone();
        tokio::spawn(async move { ledger.next_token(REBUILD, &format!("n{n}")).await.unwrap() })
    });
    let mut tokens = Vec::new();
    for draw in draws.collect::<Vec<_>>() {
        tokens.push(draw.await.unwrap());
    }
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 8);
    assert_eq!(ledger.token(REBUILD).await.unwrap(), tokens[7]);
}
