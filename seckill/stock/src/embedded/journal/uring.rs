//! Appending with io_uring: one submission carries the write and, linked behind it, the `fdatasync`.
//!
//! The file and one buffer are registered once, so that an append costs one system call and no page pinning. The only module of
//! the project with unsafe code.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::FileExt},
};

use io_uring::{IoUring, opcode, squeue::Flags, types};

use crate::embedded::faults::{FaultPoint, MaybeFaults, check};

/// Registered once; a frame that does not fit goes the plain way.
const BUFFER_LEN: usize = 1 << 20;
const WRITE: u64 = 1;
const SYNC: u64 = 2;

pub(super) struct UringWriter {
    ring: IoUring,
    buffer: Box<[u8]>,
    /// The kernel may still have a write of the buffer: it was not learnt what became of what was queued.
    is_lost: bool,
}

impl Drop for UringWriter {
    fn drop(&mut self) {
        if self.is_lost {
            // Whatever the kernel still writes must be the frame that was there, not what the memory is used for next. Once at most:
            // a journal whose ring is lost goes on without one.
            Box::leak(std::mem::take(&mut self.buffer));
        }
    }
}

impl UringWriter {
    /// Fails where the kernel, a seccomp filter or a memory limit forbids io_uring.
    pub(super) fn try_new(file: &File) -> io::Result<Self> {
        let ring = IoUring::new(4)?;
        let mut buffer = vec![0u8; BUFFER_LEN].into_boxed_slice();
        let iovec = libc_iovec(&mut buffer);
        // SAFETY: the buffer lives in a box that is owned by the same struct as the ring, is never reallocated, and is dropped
        // after it (fields drop in order), so the registered memory outlives every use by the kernel.
        unsafe { ring.submitter().register_buffers(&[iovec])? };
        ring.submitter().register_files(&[file.as_raw_fd()])?;
        Ok(Self {
            ring,
            buffer,
            is_lost: false,
        })
    }

    /// Goes on with another file.
    pub(super) fn switch(&mut self, file: &File) -> io::Result<()> {
        let updated = self
            .ring
            .submitter()
            .register_files_update(0, &[file.as_raw_fd()])?;
        match updated {
            1 => Ok(()),
            _ => Err(io::Error::other("the file was not registered")),
        }
    }

    /// Whether a frame fits the registered buffer.
    pub(super) fn fits(&self, frame: &[u8]) -> bool {
        frame.len() <= self.buffer.len()
    }

    /// Whether it can be used again. Not after the kernel has refused to take or to answer for what was queued.
    pub(super) fn is_usable(&self) -> bool {
        !self.is_lost
    }

    /// Writes a frame and waits until it is on the disk.
    pub(super) fn write_and_sync(
        &mut self,
        file: &File,
        offset: u64,
        frame: &[u8],
        faults: &MaybeFaults,
    ) -> io::Result<()> {
        assert!(!self.is_lost, "the journal drops a ring that is lost");
        self.buffer[..frame.len()].copy_from_slice(frame);
        let write =
            opcode::WriteFixed::new(types::Fixed(0), self.buffer.as_ptr(), frame.len() as u32, 0)
                .offset(offset)
                .build()
                .flags(Flags::IO_LINK)
                .user_data(WRITE);
        let sync = opcode::Fsync::new(types::Fixed(0))
            .flags(types::FsyncFlags::DATASYNC)
            .build()
            .user_data(SYNC);
        // SAFETY: both entries point at the registered buffer and file, which live as long as `self`. We wait for both completions below
        // before the buffer is touched again, also when a signal interrupts the wait; where that cannot be, the ring is lost: the
        // buffer is never touched again, nor given back. Both are queued or none.
        unsafe {
            let queued = self.ring.submission().push_multiple(&[write, sync]);
            queued.map_err(io::Error::other)?;
        }
        let (mut written, mut synced, mut seen) = (0, 0, 0);
        while seen < 2 {
            let submitted = check(faults, FaultPoint::SubmitRing)
                .and_then(|()| self.ring.submit_and_wait(2 - seen));
            match submitted {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    self.is_lost = true;
                    return Err(error);
                }
                _ => {}
            }
            for completion in self.ring.completion() {
                seen += 1;
                match completion.user_data() {
                    WRITE => written = completion.result(),
                    _ => synced = completion.result(),
                }
            }
        }
        if written < 0 {
            return Err(io::Error::from_raw_os_error(-written));
        }
        let written = written as usize;
        if written < frame.len() {
            // A short write (disk almost full) breaks the link and cancels the sync: finish, or fail, the plain way.
            file.write_all_at(&frame[written..], offset + written as u64)?;
            return file.sync_data();
        }
        if synced < 0 {
            return Err(io::Error::from_raw_os_error(-synced));
        }
        Ok(())
    }
}

fn libc_iovec(buffer: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    }
}
