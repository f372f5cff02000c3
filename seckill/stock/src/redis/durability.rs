//! What an answer waits for at each durability level, and whether a server can give it.
//!
//! `fast` waits for nothing. `replicated` waits until a replica has the write (`WAIT`). `durable` waits until it is on the
//! server's own disk: with `appendfsync always` the server syncs before it answers anyway; where it syncs once a second,
//! `WAITAOF` (Redis ≥ 7.2) waits for that. The level is a property of the segment, so it is looked at in each call.

use std::time::Duration;

use fred::types::{Value, config::Server};

use crate::{Durability, StockError};

/// Share of the timeout that a wait may use up, so that its answer still comes in time.
const WAIT_SHARE: u32 = 2;

/// `WAITAOF` came with this version.
const WAITAOF_SINCE: (u32, u32) = (7, 2);

/// How a server gets writes onto its disk before they are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnDisk {
    /// By itself: `appendfsync always`.
    Always,
    /// When it is asked to wait for its next sync.
    WaitAof,
    /// Not at all.
    No,
}

impl OnDisk {
    /// `rests_on_rewrite`: the server does not sync at all while it rewrites its file (`no-appendfsync-on-rewrite`).
    pub(super) fn of(
        version: (u32, u32),
        has_aof: bool,
        appendfsync: &str,
        rests_on_rewrite: bool,
    ) -> Self {
        match (has_aof && !rests_on_rewrite, appendfsync) {
            (true, "always") => Self::Always,
            // `no` leaves syncing to the kernel: WAITAOF would wait for half a minute.
            (true, "everysec") if version >= WAITAOF_SINCE => Self::WaitAof,
            _ => Self::No,
        }
    }

    /// Whether a server of this kind can give a level. `replicated` shows in each answer of its own.
    pub(super) fn gives(self, level: Durability) -> bool {
        level != Durability::Durable || self != Self::No
    }
}

/// Why a server cannot give a level, and what would help.
pub(super) fn refusal(at: &Server, level: Durability) -> StockError {
    StockError::Unavailable(format!(
        "redis at {at} does not sync its append-only file before it answers, as durability = \"{}\" promises; run `CONFIG SET \
         appendfsync always`, `CONFIG SET appendonly yes`, `CONFIG SET no-appendfsync-on-rewrite no` and, so that it outlives a restart, `CONFIG REWRITE`, or put them into \
         redis.conf (from Redis 7.2 on, `appendonly yes` with `appendfsync everysec` is enough); or give the sale another level",
        level.as_str()
    ))
}

/// A command that follows a call and holds its answer back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Until so many replicas have it.
    Replicas,
    /// Until it is on the server's disk.
    Disk,
}

/// Replicas that must have a write at `replicated`.
const REPLICAS: i64 = 1;

impl Wait {
    /// What a write waits for at a level.
    pub(super) fn of(level: Durability, on_disk: OnDisk) -> Option<Self> {
        match (level, on_disk) {
            (Durability::Replicated, _) => Some(Self::Replicas),
            (Durability::Durable, OnDisk::WaitAof) => Some(Self::Disk),
            (Durability::Durable | Durability::Fast, _) => None,
        }
    }

    /// The command and its arguments.
    pub(super) fn command(self, timeout: Duration) -> (&'static str, Vec<String>) {
        let wait_ms = (timeout / WAIT_SHARE).as_millis().max(1).to_string();
        match self {
            Self::Replicas => ("WAIT", vec![REPLICAS.to_string(), wait_ms]),
            Self::Disk => ("WAITAOF", vec!["1".to_owned(), "0".to_owned(), wait_ms]),
        }
    }

    /// Whether its answer says that the promise holds; if not, what is missing.
    pub(super) fn judge(self, answer: &Value) -> Result<(), String> {
        let missing = match (self, answer) {
            (Self::Replicas, Value::Integer(count)) if *count >= REPLICAS => return Ok(()),
            (Self::Replicas, Value::Integer(count)) => {
                format!("only {count} of {REPLICAS} replicas acknowledged it in time")
            }
            (Self::Disk, Value::Array(counts)) if counts.first() == Some(&Value::Integer(1)) => {
                return Ok(());
            }
            (Self::Disk, Value::Array(_)) => "it was not on the disk in time".to_owned(),
            (_, other) => format!("the answer to the wait is unreadable: {other:?}"),
        };
        Err(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durable_needs_a_server_that_syncs_in_time() {
        let cases = [
            ((7, 0), true, "always", OnDisk::Always),
            ((7, 0), true, "everysec", OnDisk::No),
            ((7, 0), false, "always", OnDisk::No),
            ((7, 2), true, "everysec", OnDisk::WaitAof),
            ((8, 0), true, "everysec", OnDisk::WaitAof),
            ((8, 0), true, "no", OnDisk::No),
            ((8, 0), false, "everysec", OnDisk::No),
        ];
        for (version, has_aof, appendfsync, expected) in cases {
            let found = OnDisk::of(version, has_aof, appendfsync, false);
            let resting = OnDisk::of(version, has_aof, appendfsync, true);
            assert_eq!(resting, OnDisk::No, "{version:?} {has_aof} {appendfsync}");
            assert_eq!(found, expected, "{version:?} {has_aof} {appendfsync}");
            assert!(found.gives(Durability::Fast) && found.gives(Durability::Replicated));
            assert_eq!(found.gives(Durability::Durable), found != OnDisk::No);
        }
    }

    #[test]
    fn each_level_waits_for_its_own() {
        use Durability::{Durable, Fast, Replicated};
        let cases = [
            (Fast, OnDisk::WaitAof, None),
            (Replicated, OnDisk::Always, Some(Wait::Replicas)),
            (Durable, OnDisk::Always, None),
            (Durable, OnDisk::WaitAof, Some(Wait::Disk)),
        ];
        for (level, on_disk, expected) in cases {
            assert_eq!(Wait::of(level, on_disk), expected);
        }
        let (command, args) = Wait::Disk.command(Duration::from_secs(2));
        assert_eq!(
            (command, args.join(" ")),
            ("WAITAOF", "1 0 1000".to_owned())
        );
        let (command, args) = Wait::Replicas.command(Duration::from_secs(2));
        assert_eq!((command, args.join(" ")), ("WAIT", "1 1000".to_owned()));
    }

    #[test]
    fn a_wait_that_ran_out_promises_nothing() {
        let disk = |local: i64| Value::Array(vec![local.into(), 0.into()]);
        assert!(Wait::Disk.judge(&disk(1)).is_ok());
        assert!(Wait::Replicas.judge(&Value::Integer(2)).is_ok());
        for (wait, answer) in [
            (Wait::Disk, disk(0)),
            (Wait::Disk, Value::Integer(1)),
            (Wait::Replicas, Value::Integer(0)),
            (Wait::Replicas, Value::Null),
        ] {
            assert!(wait.judge(&answer).is_err(), "{wait:?} {answer:?}");
        }
    }
}
