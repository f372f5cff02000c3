//! A disk that fails on command, and how long.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use stock::embedded::faults::{FaultPoint, Faults};

/// No space left on the device.
pub const ENOSPC: i32 = 28;
/// The device has failed.
pub const EIO: i32 = 5;

#[derive(Default)]
pub struct Disk {
    failing: Mutex<HashMap<FaultPoint, Fault>>,
    cut: Mutex<Option<usize>>,
    passed: Mutex<HashMap<FaultPoint, u64>>,
    failures: AtomicU64,
}

#[derive(Clone, Copy)]
struct Fault {
    /// Steps that still succeed.
    after: u64,
    error: i32,
}

impl Disk {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The step fails from now on.
    pub fn fail(&self, point: FaultPoint, error: i32) {
        self.fail_after(point, 0, error);
    }

    /// The step succeeds so many times more, then fails.
    pub fn fail_after(&self, point: FaultPoint, after: u64, error: i32) {
        self.failing
            .lock()
            .unwrap()
            .insert(point, Fault { after, error });
    }

    /// Every frame is cut off after so many bytes, as on a full disk.
    pub fn cut_writes(&self, after: usize) {
        *self.cut.lock().unwrap() = Some(after);
    }

    /// Everything works again.
    pub fn heal(&self) {
        self.failing.lock().unwrap().clear();
        *self.cut.lock().unwrap() = None;
    }

    /// How often something failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::SeqCst)
    }

    /// How often a step was reached.
    pub fn reached(&self, point: FaultPoint) -> u64 {
        self.passed
            .lock()
            .unwrap()
            .get(&point)
            .copied()
            .unwrap_or(0)
    }
}

impl Faults for Disk {
    fn at(&self, point: FaultPoint) -> io::Result<()> {
        *self.passed.lock().unwrap().entry(point).or_default() += 1;
        let mut failing = self.failing.lock().unwrap();
        match failing.get_mut(&point) {
            Some(fault) if fault.after > 0 => {
                fault.after -= 1;
                Ok(())
            }
            Some(fault) => {
                self.failures.fetch_add(1, Ordering::SeqCst);
                Err(io::Error::from_raw_os_error(fault.error))
            }
            None => Ok(()),
        }
    }

    fn cut_write(&self, length: usize) -> Option<(usize, io::Error)> {
        let cut = (*self.cut.lock().unwrap())?;
        self.failures.fetch_add(1, Ordering::SeqCst);
        Some((cut.min(length), io::Error::from_raw_os_error(ENOSPC)))
    }
}
