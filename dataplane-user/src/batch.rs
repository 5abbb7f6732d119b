//! Maps read by thousands of entries to a system call, where aya takes two calls for each entry; and
//! entries taken out of one whole.
//!
//! aya 0.14 has neither. The layouts are those of `union bpf_attr` in
//! include/uapi/linux/bpf.h.

use std::{
    borrow::{Borrow, BorrowMut},
    ffi::c_long,
    hash::Hash,
    io, iter,
    mem::MaybeUninit,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr,
};

use aya::{
    Pod,
    maps::{Array, HashMap, IterableMap, MapData},
};
use nix::libc;

use crate::syscall::bpf;

/// Bytes of a batch, unless a hash map's bucket has more: buckets are never cut.
const CAPACITY: usize = 512 << 10;

/// `BPF_MAP_LOOKUP_AND_DELETE_ELEM` of `enum bpf_cmd`; of hash maps since Linux 5.14.
const LOOKUP_AND_DELETE: c_long = 21;

/// `BPF_MAP_LOOKUP_BATCH`; of hash maps and arrays since Linux 5.6.
const LOOKUP_BATCH: c_long = 24;

/// `BPF_MAP_UPDATE_BATCH`; of arrays since Linux 5.6.
const UPDATE_BATCH: c_long = 26;

/// The part of `union bpf_attr` for one element.
#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Its part for batches.
#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    element_flags: u64,
    flags: u64,
}

const _: () = assert!(size_of::<ElementAttr>() == 32);
const _: () = assert!(size_of::<BatchAttr>() == 56);

/// A way through a map, batch by batch. An entry that stays in the map all the while is seen
/// exactly once; one that comes, goes or changes meanwhile is seen as it was at some moment, or not.
#[derive(Debug)]
pub struct Batches<K, V> {
    keys: Vec<K>,
    values: Vec<V>,
    capacity: usize,
    position: Position,
}

/// How far it has come.
#[derive(Debug, Clone, Copy)]
enum Position {
    Start,
    /// Before this bucket.
    Bucket(u32),
    End,
}

impl<K: Pod + Eq + Hash, V: Pod> Default for Batches<K, V> {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            values: Vec::new(),
            capacity: CAPACITY / (size_of::<K>() + size_of::<V>()),
            position: Position::Start,
        }
    }
}

impl<K: Pod + Eq + Hash, V: Pod> Batches<K, V> {
    /// Reads the next batch of `map`, which has to be the same every time; none after the last one.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn read<'a, M: IterableMap<K, V>>(
        &'a mut self,
        map: &M,
    ) -> io::Result<Option<impl ExactSizeIterator<Item = (K, V)> + use<'a, M, K, V>>> {
        self.keys.clear();
        self.values.clear();
        // A batch may be empty where its buckets were.
        while self.keys.is_empty() {
            let bucket = match self.position {
                Position::Start => None,
                Position::Bucket(bucket) => Some(bucket),
                Position::End => return Ok(None),
            };
            match self.look_up(map, bucket) {
                Ok(position) => self.position = position,
                Err(error) => match error.raw_os_error() {
                    // The next bucket has more.
                    Some(libc::ENOSPC) => self.capacity *= 2,
                    _ => return Err(error),
                },
            }
        }
        let entries = iter::zip(&self.keys, &self.values);
        Ok(Some(entries.map(|(key, value)| (*key, *value))))
    }

    /// Fills the batch from `bucket` on. Returns where to go on.
    fn look_up(
        &mut self,
        map: &impl IterableMap<K, V>,
        bucket: Option<u32>,
    ) -> io::Result<Position> {
        self.keys.reserve(self.capacity);
        self.values.reserve(self.capacity);
        let mut next = 0_u32;
        let mut attr = BatchAttr {
            in_batch: bucket
                .as_ref()
                .map_or(0, |bucket| ptr::from_ref(bucket) as u64),
            out_batch: &raw mut next as u64,
            keys: self.keys.as_mut_ptr() as u64,
            values: self.values.as_mut_ptr() as u64,
            count: self.capacity as u32,
            map_fd: descriptor(map.map()),
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: `attr` is what this command takes. The kernel reads a bucket's number from `in_batch`
        // if that is not null, writes one to `out_batch`, and at most `count` keys and values, which have
        // the sizes of `K` and `V` (aya has compared them) and for which there is room.
        let position = match unsafe { bpf(LOOKUP_BATCH, &mut attr) } {
            Ok(_) => Position::Bucket(next),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Position::End,
            Err(error) => return Err(error),
        };
        // SAFETY: the kernel has written that many, and any bytes make a `Pod`.
        unsafe {
            self.keys.set_len(attr.count as usize);
            self.values.set_len(attr.count as usize);
        }
        Ok(position)
    }
}

/// Reads `count` entries of an array from `first` on, which it has.
///
/// # Errors
///
/// The kernel refuses.
pub fn read_range<V: Pod>(
    array: &Array<impl Borrow<MapData>, V>,
    first: u32,
    count: u32,
) -> io::Result<Vec<V>> {
    let mut keys = Vec::<u32>::with_capacity(count as usize);
    let mut values = Vec::<V>::with_capacity(count as usize);
    // The kernel goes on behind the entry that it is given.
    let before = first.wrapping_sub(1);
    let mut last = 0_u32;
    let mut attr = BatchAttr {
        in_batch: if first == 0 {
            0
        } else {
            ptr::from_ref(&before) as u64
        },
        out_batch: &raw mut last as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count,
        map_fd: descriptor(array.map()),
        element_flags: 0,
        flags: 0,
    };
    // SAFETY: `attr` is what this command takes; keys and values have the sizes of the map's, which aya has
    // compared, and there is room for `count` of each.
    match unsafe { bpf(LOOKUP_BATCH, &mut attr) } {
        // At the end of the array.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
        result => {
            result?;
        }
    }
    if attr.count != count {
        return Err(io::Error::other("the array is shorter than that"));
    }
    // SAFETY: the kernel has written that many, and any bytes make a `Pod`.
    unsafe { values.set_len(count as usize) };
    Ok(values)
}

/// Writes entries of an array, one after the other from `first` on.
///
/// # Errors
///
/// The kernel refuses; then some of the first may have been written.
pub fn write_range<V: Pod>(
    array: &mut Array<impl BorrowMut<MapData>, V>,
    first: u32,
    values: &[V],
) -> io::Result<()> {
    let count = values.len() as u32;
    let keys: Vec<u32> = (first..first + count).collect();
    let mut attr = BatchAttr {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count,
        map_fd: descriptor(array.map()),
        element_flags: 0,
        flags: 0,
    };
    // SAFETY: `attr` is what this command takes; the kernel reads `count` keys and values of the map's sizes,
    // which aya has compared.
    unsafe { bpf(UPDATE_BATCH, &mut attr) }.map(drop)
}

/// Takes an entry out of `map` and returns what it was at that moment; none if it was not there.
///
/// # Errors
///
/// The kernel refuses.
pub fn take<K: Pod, V: Pod>(
    map: &mut HashMap<impl BorrowMut<MapData>, K, V>,
    key: &K,
) -> io::Result<Option<V>> {
    let mut value = MaybeUninit::<V>::uninit();
    let mut attr = ElementAttr {
        map_fd: descriptor(map.map()),
        padding: 0,
        key: ptr::from_ref(key) as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: `attr` is what this command takes. The kernel reads a key and writes a value, which have
    // the sizes of `K` and `V`: aya has compared them.
    match unsafe { bpf(LOOKUP_AND_DELETE, &mut attr) } {
        // SAFETY: the kernel has written it, and any bytes make a `Pod`.
        Ok(_) => Ok(Some(unsafe { value.assume_init() })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn descriptor(map: &MapData) -> u32 {
    // Descriptors are never negative.
    map.fd().as_fd().as_raw_fd() as u32
}
