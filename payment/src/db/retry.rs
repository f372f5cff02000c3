//! Which errors mean that a transaction lost a race, the same for SQLite and PostgreSQL, and how it is run again.

/// How often a transaction that lost a race is begun again before the caller hears of it.
const TRIES: u32 = 5;

/// An error that says whether the transaction was undone by a race and may simply be run again.
pub(crate) trait MayRetry {
    fn may_retry(&self) -> bool;
}

impl MayRetry for sqlx::Error {
    fn may_retry(&self) -> bool {
        let Some(code) = self.as_database_error().and_then(|e| e.code()) else {
            return false;
        };
        matches!(
            code.as_ref(),
            // PostgreSQL: serialization failure, deadlock.
            "40001" | "40P01"
            // SQLite: busy, locked, busy with a stale snapshot.
            | "5" | "6" | "517"
        )
    }
}

/// Runs a transaction again while races undo it, a bounded number of times.
pub(crate) async fn retrying<T, E, F>(mut run: impl FnMut() -> F) -> Result<T, E>
where
    E: MayRetry,
    F: Future<Output = Result<T, E>>,
{
    let mut tries = 1;
    loop {
        match run().await {
            Err(error) if tries < TRIES && error.may_retry() => tries += 1,
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[derive(Debug, PartialEq)]
    enum Failure {
        Race,
        Other,
    }

    impl MayRetry for Failure {
        fn may_retry(&self) -> bool {
            *self == Self::Race
        }
    }

    async fn runs(failure: fn() -> Failure) -> u32 {
        let runs = Cell::new(0);
        let run = || async {
            runs.set(runs.get() + 1);
            Err::<(), _>(failure())
        };
        retrying(run).await.unwrap_err();
        runs.get()
    }

    #[tokio::test]
    async fn a_lost_race_is_run_again_a_few_times_and_nothing_else_is() {
        assert_eq!(runs(|| Failure::Race).await, TRIES);
        assert_eq!(runs(|| Failure::Other).await, 1);
        assert!(!sqlx::Error::RowNotFound.may_retry());
    }
}
