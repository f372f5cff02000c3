//! The embedded store under a wall clock that steps.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use stock::{
    Gate, SegmentSpec, Segments, StockStore, Verdict,
    clock::WallClock,
    embedded::{RecoverError, Tuning},
};
use testkit::embedded::{close, open_tuned, orders, purchase, spec, try_open_tuned};

const T: u64 = 1_700_000_000_000;
const HOUR: u64 = 3_600_000;

struct Clock(Arc<AtomicU64>);

impl Clock {
    fn at(ms: u64) -> Self {
        Self(Arc::new(AtomicU64::new(ms)))
    }

    fn set(&self, ms: u64) {
        self.0.store(ms, Ordering::SeqCst);
    }

    fn reader(&self) -> WallClock {
        let now = self.0.clone();
        Arc::new(move || now.load(Ordering::SeqCst))
    }
}

fn sale() -> SegmentSpec {
    SegmentSpec {
        starts_at_ms: T - HOUR,
        ends_at_ms: T,
        ..spec("s", 100)
    }
}

async fn verdict(store: &dyn StockStore, n: u32) -> Verdict {
    let id = sale().id;
    store
        .buy_many(&id, 1, vec![purchase(n)])
        .await
        .unwrap()
        .remove(0)
}

/// INV-WINDOW-1, also over a restart: the journal remembers the time.
#[tokio::test]
async fn a_clock_set_back_does_not_open_an_ended_window() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::at(T + 1);
    let store = open_tuned(folder.path(), Tuning::default(), clock.reader());
    store.open(&sale()).await.unwrap();
    assert_eq!(verdict(&store, 0).await, Verdict::Ended);
    clock.set(T - HOUR / 2);
    assert_eq!(verdict(&store, 1).await, Verdict::Ended);
    close(store, folder.path()).await;
    let store = open_tuned(folder.path(), Tuning::default(), clock.reader());
    assert_eq!(verdict(&store, 2).await, Verdict::Ended);
}

/// The window ends while nothing is written; the end itself is.
#[tokio::test]
async fn the_end_of_a_window_is_remembered_even_if_nothing_was_sold() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::at(T - 1_500);
    let store = open_tuned(folder.path(), Tuning::default(), clock.reader());
    store.open(&sale()).await.unwrap();
    clock.set(T + 100);
    // Looked at once a second, by whatever call comes along.
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    let written = || {
        std::fs::read(folder.path().join("journal-0000000001.log"))
            .unwrap()
            .len()
    };
    let before = written();
    while written() == before {
        assert!(tokio::time::Instant::now() < deadline, "never written");
        store.snapshot(&sale().id).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    close(store, folder.path()).await;
    clock.set(T - HOUR / 2);
    let store = open_tuned(folder.path(), Tuning::default(), clock.reader());
    assert_eq!(verdict(&store, 0).await, Verdict::Ended);
}

/// Broke: whatever the first reading said was believed, for ever: a clock chip that says 2099 at a boot ended every sale, and time never
/// came back.
#[tokio::test]
async fn a_start_with_a_clock_that_cannot_be_right_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::at(T - HOUR / 2);
    let store = open_tuned(folder.path(), Tuning::default(), clock.reader());
    store.open(&sale()).await.unwrap();
    close(store, folder.path()).await;
    for wrong in [T + 73 * 365 * 24 * HOUR, T - 8 * HOUR, 0] {
        clock.set(wrong);
        let refused = try_open_tuned(folder.path(), Tuning::default(), clock.reader());
        let error = refused.map(|_| ()).unwrap_err();
        assert!(matches!(error, RecoverError::Clock { .. }), "{error}");
    }
    clock.set(T - HOUR / 4);
    let store = open_tuned(folder.path(), Tuning::default(), clock.reader());
    let accepted = verdict(&store, 0).await;
    assert!(matches!(accepted, Verdict::Accepted { .. }), "{accepted:?}");
    close(store, folder.path()).await;
    // Off for a month: its sales are over.
    clock.set(T + 30 * 24 * HOUR);
    let store = open_tuned(folder.path(), Tuning::default(), clock.reader());
    assert_eq!(verdict(&store, 1).await, Verdict::Ended);
}

#[tokio::test]
async fn time_goes_back_to_right_if_an_operator_says_so_once() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::at(T - HOUR / 2);
    let store = open_tuned(folder.path(), Tuning::default(), clock.reader());
    store.open(&sale()).await.unwrap();
    close(store, folder.path()).await;
    // By eight hours: a wrong time zone is no reason to refuse, and it is believed.
    clock.set(T + 8 * HOUR);
    let store = open_tuned(folder.path(), Tuning::default(), clock.reader());
    assert_eq!(verdict(&store, 0).await, Verdict::Ended);
    store.set_gate(&sale().id, Gate::Paused).await.unwrap();
    store.set_gate(&sale().id, Gate::Open).await.unwrap();
    close(store, folder.path()).await;

    clock.set(T - HOUR / 4);
    let accepting = Tuning {
        accepts_clock: true,
        ..Tuning::default()
    };
    let store = open_tuned(folder.path(), accepting, clock.reader());
    // Nothing else is written: the time itself is.
    close(store, folder.path()).await;
    let store = open_tuned(folder.path(), Tuning::default(), clock.reader());
    let accepted = verdict(&store, 1).await;
    assert!(matches!(accepted, Verdict::Accepted { .. }), "{accepted:?}");
    let order = &orders(&store, &sale().id).await[0];
    assert!(order.pay_by_ms < T + HOUR, "{order:?}");
}

#[tokio::test]
async fn times_to_pay_never_go_back_and_never_jump() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::at(T - HOUR / 2);
    let store = open_tuned(folder.path(), Tuning::default(), clock.reader());
    store.open(&sale()).await.unwrap();
    for (n, step) in [0, -2_000_000i64, -5_000, 1_700_000, 0]
        .into_iter()
        .enumerate()
    {
        clock.set((T - HOUR / 2).saturating_add_signed(step));
        let accepted = verdict(&store, n as u32).await;
        assert!(matches!(accepted, Verdict::Accepted { .. }), "{accepted:?}");
    }
    let times: Vec<u64> = orders(&store, &sale().id)
        .await
        .iter()
        .map(|order| order.pay_by_ms)
        .collect();
    assert!(times.is_sorted(), "{times:?}");
    assert!(times[4] - times[0] < 60_000, "{times:?}");
}
