//! A timer finer than the runtime's whole milliseconds, so that arrivals go out when they are due and not in bursts.

#[cfg(target_os = "linux")]
pub(super) use linux::Timer;
#[cfg(not(target_os = "linux"))]
pub(super) use other::Timer;

#[cfg(target_os = "linux")]
mod linux {
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    /// A kernel timer (timerfd), good to a few microseconds.
    pub(crate) struct Timer(AsyncFd<OwnedFd>);

    impl Timer {
        pub(crate) fn new() -> std::io::Result<Timer> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            // Deprecated for types whose descriptor may change or close under it; an `OwnedFd` does neither, and the
            // replacement is an unsafe function that would say the same.
            #[expect(
                deprecated,
                reason = "sound for OwnedFd; the replacement needs unsafe code"
            )]
            Ok(Timer(AsyncFd::new(fd)?))
        }

        /// Waits at least that long.
        pub(crate) async fn sleep(&mut self, duration: Duration) -> std::io::Result<()> {
            // Zero would disarm the timer.
            let duration = duration.max(Duration::from_nanos(1));
            let zero = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let spec = Itimerspec {
                it_interval: zero,
                it_value: Timespec {
                    tv_sec: duration.as_secs() as i64,
                    tv_nsec: duration.subsec_nanos().into(),
                },
            };
            // Setting the time also clears an expiry nobody read, so a cancelled sleep leaves nothing behind.
            timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &spec)?;
            loop {
                let mut guard = self.0.readable().await?;
                let mut expiries = [0u8; 8];
                match rustix::io::read(self.0.get_ref(), &mut expiries) {
                    Ok(_) => return Ok(()),
                    Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use std::time::Duration;

    /// The runtime's timer, rounded up to milliseconds.
    pub(crate) struct Timer;

    impl Timer {
        pub(crate) fn new() -> std::io::Result<Timer> {
            Ok(Timer)
        }

        /// Waits at least that long.
        pub(crate) async fn sleep(&mut self, duration: Duration) -> std::io::Result<()> {
            tokio::time::sleep(duration).await;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn it_is_never_early() {
        let mut timer = Timer::new().unwrap();
        for micros in [0, 50, 200, 1500] {
            let wanted = Duration::from_micros(micros);
            let start = Instant::now();
            timer.sleep(wanted).await.unwrap();
            assert!(start.elapsed() >= wanted);
        }
    }

    #[tokio::test]
    async fn a_cancelled_sleep_does_not_end_the_next_one_early() {
        let mut timer = Timer::new().unwrap();
        {
            let short = timer.sleep(Duration::from_micros(1));
            tokio::pin!(short);
            let _ = tokio::time::timeout(Duration::ZERO, short).await;
        }
        let start = Instant::now();
        timer.sleep(Duration::from_millis(2)).await.unwrap();
        assert!(start.elapsed() >= Duration::from_millis(2));
    }
}
