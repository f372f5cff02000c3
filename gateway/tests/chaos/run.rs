//! One run from first to last: start, sell while things break, mend, wait until all is quiet, ask for every unknown, sell what is
//! left, and let the oracle judge.

use std::{path::PathBuf, sync::Arc};

use loadtest::{
    admin::AdminClient,
    history::Action,
    ledger::{LedgerRow, OrderStatus, SaleReport},
    oracle::{self, Allow, Rule},
    reconcile::EndFacts,
    scenario::Admin,
};
use serde_json::json;
use tokio::{
    sync::Mutex,
    time::{Duration, Instant, sleep},
};

use crate::{
    bench::{Bench, Postgres},
    cheats::Cheat,
    clients,
    drain::drain,
    faults,
    goods::SALE,
    market::{Market, Seen},
    plan::Plan,
    recorder::{HistoryRecorder, wall_ms},
    wire::{Ask, send},
};

/// After the last fault everything must have settled within this long: the longest backoff is five seconds.
const QUIET_WITHIN: Duration = Duration::from_secs(20);
/// A ledger that went back is filled again by the comparison: every ten seconds, on the node that holds its lease. If that one was
/// killed, another does it when the lease has run out.
const FILLED_WITHIN: Duration = Duration::from_secs(45);
/// A run with a cheat in it may never settle, and nobody is surprised.
const CHEATED_WITHIN: Duration = Duration::from_secs(1);
/// Connections of the pools back off up to five seconds after a fault, and so does what waits for them.
const RETURN_LAG_MS: u64 = 8_000;

/// A finished run.
pub struct Ended {
    problems: Vec<String>,
    broken: Vec<Rule>,
    history: PathBuf,
    text: String,
}

impl Ended {
    pub fn verdict(&self) -> &'static str {
        match self.problems.is_empty() {
            true => "held",
            false => "broken",
        }
    }

    /// The rules that the oracle found broken.
    pub fn broken(&self) -> Vec<Rule> {
        self.broken.clone()
    }

    /// What is wrong, and where to look.
    pub fn why(&self) -> Option<String> {
        (!self.problems.is_empty()).then(|| {
            format!(
                "{}\n{}history and logs: {}",
                self.problems.join("\n"),
                self.text,
                self.history.with_extension("*").display()
            )
        })
    }
}

/// Runs a plan.
pub async fn run(plan: &Plan, server: &Arc<Postgres>) -> Ended {
    run_with(plan, server, None).await
}

/// Runs a plan while something cheats.
pub async fn run_with(plan: &Plan, server: &Arc<Postgres>, cheat: Option<Cheat>) -> Ended {
    let history =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{}.jsonl", plan.seed));
    let bench = Bench::start(plan, server).await;
    let admins: Vec<_> = bench.nodes.iter().map(|node| node.admin).collect();
    create_sale(plan, admins[0]).await;
    bench.find_stock().await;
    let market = Arc::new(Market {
        goods: plan.goods.clone(),
        fronts: bench.fronts(),
        admins,
        recorder: HistoryRecorder::create(&history, plan.seed, plan.level),
        unknown: Mutex::default(),
        wrongs: Mutex::default(),
    });
    let mut problems = Vec::new();
    knows_the_sale(&market).await;
    load(plan, &bench, &market, cheat).await;

    let admin = |at: &std::net::SocketAddr| {
        let url = format!("http://{at}");
        let token_file = None;
        AdminClient::new(&Admin { url, token_file }).unwrap()
    };
    let admins: Vec<AdminClient> = market.admins.iter().map(admin).collect();
    let patience = match cheat {
        None if plan.only_buys() => FILLED_WITHIN,
        None => QUIET_WITHIN,
        Some(_) => CHEATED_WITHIN,
    };
    // A pause whose answer was lost must not outlive the run.
    let resumed = eventually(patience, async || {
        market.operate(99, 0, Action::Resume, None).await != Seen::Unknown
    });
    if !resumed.await {
        problems.push("the admin API did not come back".to_owned());
    }
    if !settled(&admins, plan, patience).await {
        problems.push(format!(
            "nothing settled within {patience:?} after the last fault"
        ));
    }
    market.recorder.quiet();
    ask_for_unknowns(&market, patience, &mut problems).await;
    let drained = cheat.is_none() && drain(plan, &market, &admins, &mut problems).await;
    if !settled(&admins, plan, patience).await {
        problems.push("what was sold after the faults did not settle".to_owned());
    }
    if let Some(cheat) = cheat {
        cheat.at_the_end(&bench).await;
    }
    match EndFacts::read(&admins[0], SALE).await {
        Ok(facts) => facts.record(market.recorder.sender()),
        Err(error) => problems.push(format!("no facts at the end: {error:#}")),
    }
    problems.extend(reconciled(&market, patience).await);
    let Ok(market) = Arc::try_unwrap(market).map_err(drop) else {
        panic!("every client has ended");
    };
    let drained = drained && plan.keeps_orders();
    problems.append(&mut *market.wrongs.lock().await);
    tokio::task::block_in_place(|| market.recorder.finish(drained));
    let ended = judge(plan, &bench, history, problems);
    bench.end().await;
    ended
}

fn judge(plan: &Plan, bench: &Bench, history: PathBuf, mut problems: Vec<String>) -> Ended {
    let allow = |_| {
        let at_level = Allow::at(plan.owes());
        Allow {
            return_lag_ms: RETURN_LAG_MS,
            skew_ms: at_level.skew_ms + plan.step_ms(),
            ..at_level
        }
    };
    let mut broken = Vec::new();
    let text = match oracle::verify_file(&history, allow, |_, _| {}) {
        Ok((verdict, read)) => {
            if !verdict.held {
                problems.push("the oracle found rules broken".to_owned());
            }
            if verdict.tally.acknowledged == 0 {
                problems.push("nothing was sold: the run is of no use".to_owned());
            }
            broken.extend(verdict.violations.iter().map(|found| found.rule));
            oracle::render(&verdict, &history.display().to_string(), read)
        }
        Err(error) => {
            problems.push(format!("the history cannot be judged: {error}"));
            String::new()
        }
    };
    if problems.is_empty() {
        let _ = std::fs::remove_file(&history);
    } else {
        bench.keep_logs(&history);
    }
    Ended {
        problems,
        broken,
        history,
        text,
    }
}

async fn create_sale(plan: &Plan, admin: std::net::SocketAddr) {
    let now = wall_ms();
    let starts_at_ms = match plan.opens_after.is_zero() {
        true => now - 1_000,
        false => now + plan.opens_after.as_millis() as u64,
    };
    let sale = plan
        .goods
        .document(starts_at_ms, now + 3_600_000, plan.pay_within.as_secs());
    administer(admin, http::Method::POST, "", &sale).await;
    let blocked = plan.goods.blocked(plan.clients);
    if !blocked.is_empty() {
        let page = json!({"add": blocked});
        let path = format!("/{SALE}/lists/block");
        administer(admin, http::Method::PUT, &path, &page).await;
        // Every node reads the lists of a sale before it shows the sale.
        let path = format!("/{SALE}/publish");
        administer(admin, http::Method::POST, &path, &json!({})).await;
    }
}

/// Something that succeeds before anything breaks.
async fn administer(
    admin: std::net::SocketAddr,
    method: http::Method,
    path: &str,
    body: &serde_json::Value,
) {
    let reply = send(Ask {
        to: admin,
        method,
        path: format!("/admin/v1/sales{path}"),
        headers: vec![("content-type", "application/json")],
        body: body.to_string(),
    });
    let reply = reply.await.unwrap();
    assert!(matches!(reply.status, 200 | 201), "{path}: {}", reply.body);
}

/// Another node hears of a new sale within half a second.
async fn knows_the_sale(market: &Market) {
    for front in &market.fronts {
        let known = eventually(QUIET_WITHIN, async || {
            let reply = send(Ask {
                to: *front,
                method: http::Method::GET,
                path: format!("/v1/sales/{SALE}"),
                headers: Vec::new(),
                body: String::new(),
            });
            reply.await.is_ok_and(|reply| reply.status == 200)
        });
        assert!(known.await, "a node never heard of the sale");
    }
}

async fn load(plan: &Plan, bench: &Bench, market: &Arc<Market>, cheat: Option<Cheat>) {
    let until = Instant::now() + plan.load;
    let mut tasks = tokio::task::JoinSet::new();
    let early = !plan.opens_after.is_zero();
    for client in 0..plan.clients as u32 {
        tasks.spawn(clients::buyer(
            Arc::clone(market),
            client,
            plan.seed,
            until,
            early,
            plan.only_buys(),
        ));
    }
    let operator = plan.clients as u32;
    if !plan.only_buys() {
        tasks.spawn(clients::operator(
            Arc::clone(market),
            operator,
            plan.seed,
            until,
        ));
    }
    faults::run(plan, bench, &market.recorder).await;
    if let Some(cheat) = cheat {
        cheat.during_the_load(bench, until).await;
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

/// Waits until, by every node, every accepted order is in the ledger and the store has been told what the ledger decided.
async fn settled(admins: &[AdminClient], plan: &Plan, patience: Duration) -> bool {
    let is_settled = |report: &SaleReport| {
        let units = report.skus.iter().all(|sku| {
            let live = sku.reserved + sku.sold;
            sku.ledger_sold == Some(live) && sku.available + live == sku.stock + sku.restocked
        });
        let returned = plan.keeps_orders() || report.skus.iter().all(|sku| sku.reserved == 0);
        units && returned && report.queue_depth == 0 && report.unsettled() == 0
    };
    // A store that could not be told of payments for a while is told seconds later.
    let is_told = |report: &SaleReport, rows: &[LedgerRow]| {
        report.skus.iter().all(|sku| {
            let paid = |row: &&LedgerRow| row.sku == sku.sku && row.status == OrderStatus::Paid;
            rows.iter()
                .filter(paid)
                .map(|row| row.quantity)
                .sum::<u64>()
                == sku.sold
        })
    };
    eventually(patience, async || {
        for admin in admins {
            let (Ok(report), Ok(rows)) = (admin.report(SALE).await, admin.orders(SALE).await)
            else {
                return false;
            };
            if !is_settled(&report) || !is_told(&report, &rows) {
                return false;
            }
        }
        true
    })
    .await
}

/// Every purchase whose end nobody knew is asked for until it has one.
async fn ask_for_unknowns(market: &Market, patience: Duration, problems: &mut Vec<String>) {
    let unknown = std::mem::take(&mut *market.unknown.lock().await);
    for (at, purchase) in unknown.iter().enumerate() {
        let told = eventually(patience, async || {
            market.poll(98, at, purchase).await != Seen::Unknown
        });
        if !told.await {
            problems.push(format!("{purchase:?} is still unknown"));
        }
    }
}

/// The server's own opinion, which must be the oracle's.
async fn reconciled(market: &Market, patience: Duration) -> Option<String> {
    let mut last = String::new();
    let held = eventually(patience, async || {
        let reply = send(Ask {
            to: market.admins[0],
            method: http::Method::GET,
            path: format!("/admin/v1/sales/{SALE}/reconcile"),
            headers: Vec::new(),
            body: String::new(),
        });
        match reply.await {
            Ok(reply) => {
                last = reply.body.to_string();
                reply.body["ok"] == true
            }
            Err(why) => {
                last = why.to_owned();
                false
            }
        }
    });
    (!held.await).then(|| format!("penstock reconcile: {last}"))
}

/// Whether a fact comes true in time.
async fn eventually(limit: Duration, mut fact: impl AsyncFnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if fact().await {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        sleep(Duration::from_millis(100)).await;
    }
}
