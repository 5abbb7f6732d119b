//! A packet's bytes between the two pointers that a program is given: every load and store goes through here.

use bytemuck::Pod;
use dataplane_common::packet::WriteFault;

/// The bytes that can be reached, as of the last helper that may have moved them.
#[derive(Clone, Copy)]
pub struct Bytes {
    start: usize,
    end: usize,
}

impl Bytes {
    /// From `start` to before `end`, which are `data` and `data_end` of the program's context.
    #[inline(always)]
    pub fn between(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// A copy of the `T` at `offset`, if it is among them.
    #[inline(always)]
    pub fn load<T: Pod>(self, offset: usize) -> Option<T> {
        // SAFETY: `at` has checked the bounds; `T` is valid for any bytes. eBPF loads need no alignment
        // where the kernel has efficient unaligned access, and the verifier refuses them elsewhere.
        self.at(offset).map(|pointer| unsafe { *pointer })
    }

    /// Puts `value` at `offset`.
    #[inline(always)]
    pub fn store<T: Pod>(self, offset: usize, value: T) -> Result<(), WriteFault> {
        let pointer = self.at(offset).ok_or(WriteFault)?;
        // SAFETY: `at` has checked the bounds; for alignment see `load`.
        unsafe { *pointer = value };
        Ok(())
    }

    #[inline(always)]
    fn at<T>(self, offset: usize) -> Option<*mut T> {
        let start = self.start + offset;
        (start + size_of::<T>() <= self.end).then_some(start as *mut T)
    }
}
