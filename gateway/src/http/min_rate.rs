//! The least rate at which a client has to send and to read. Pure.

use std::time::Duration;

/// A client may be this late before somebody else's request is worth more than its own.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// How slowly a client may send or read.
#[derive(Clone, Copy, Debug)]
pub struct MinRate(pub u64);

impl MinRate {
    /// How much more time a client has taken than this many bytes may take.
    pub fn late(self, taken: Duration, bytes: u64) -> Duration {
        let allowed = Duration::from_micros(bytes.saturating_mul(1_000_000) / self.0.max(1));
        taken.saturating_sub(allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_buy_time() {
        let rate = MinRate(1024);
        let late = |seconds, bytes| rate.late(Duration::from_secs(seconds), bytes).as_secs();
        assert_eq!(late(10, 0), 10);
        assert_eq!(late(10, 4096), 6);
        assert_eq!(late(10, 1 << 20), 0);
    }
}
