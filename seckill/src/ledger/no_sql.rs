//! Threads that must not wait for SQL: a core of the data plane serves thousands of connections, and a connection to the database that is
//! opened there belongs to its runtime for good.

use std::cell::Cell;

thread_local! {
    static FORBIDDEN: Cell<bool> = const { Cell::new(false) };
}

/// From now on no connection of a ledger may be taken on this thread: a debug build panics where it is.
pub fn forbid_sql_here() {
    FORBIDDEN.set(true);
}

/// Called where a connection is taken.
pub(super) fn check() {
    debug_assert!(
        !FORBIDDEN.get(),
        "SQL on a thread that must not wait for it: run it on the control runtime"
    );
}

#[cfg(test)]
mod tests {
    use crate::ledger;

    #[test]
    #[cfg(debug_assertions)]
    fn a_forbidden_thread_gets_no_connection() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let tried = std::thread::spawn(move || {
            runtime.block_on(async {
                let folder = tempfile::tempdir().unwrap();
                let url = format!("sqlite:{}/ledger.db", folder.path().display());
                let pool = ledger::connect(&url).await.unwrap();
                super::forbid_sql_here();
                pool.acquire().await.map(drop)
            })
        });
        assert!(tried.join().is_err(), "a connection was taken");
    }
}
