//! Removes flows that are over from the tables behind the buckets, which would be full of them one day. In a bucket
//! they give way to others by themselves.
//!
//! The programs go on meanwhile. Between a look at an entry and its removal a new connection with the same
//! tuple may have begun; `remove` looks out for that.

use std::{
    borrow::BorrowMut,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use aya::{
    Pod,
    maps::{Array, HashMap, MapData, MapError},
};
use dataplane_common::{
    flow::{Flow, FlowKey},
    pod::IpAddress,
    published::Backend,
    state::Timeouts,
};
use nix::{
    libc,
    time::{ClockId, clock_gettime},
};

use crate::{
    batch::{Batches, take},
    dataplane::Dataplane,
    instance::Instance,
    liveness::Liveness,
};

/// The pause between two sweeps is at least this long, and at least so many times as long as the last
/// sweep has kept a CPU busy: collecting takes less than a hundredth of one, however many flows there are.
const PAUSE: Duration = Duration::from_secs(10);
const IDLENESS: u32 = 128;

/// `BPF_NOEXIST` (include/uapi/linux/bpf.h): an insertion that replaces nothing.
const NO_REPLACEMENT: u64 = 1;

/// Sweeps an instance's flows from time to time, until it is dropped.
#[derive(Debug)]
pub struct Collector {
    /// The thread ends when this goes.
    _wanted: Sender<()>,
}

/// What a sweep has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sweep {
    /// Entries looked at.
    pub seen: u64,
    /// Entries removed.
    pub removed: u64,
    /// How long it has kept a CPU busy.
    pub busy: Duration,
}

impl Collector {
    /// Starts, beginning with a sweep, on a thread of its own: sweeps are nothing but system calls. It
    /// works on the maps of the load `load_id` and no others. They outlive their unload for as long as it
    /// sweeps, which then does no good and no harm.
    ///
    /// # Errors
    ///
    /// That load is not there any more.
    pub fn start(instance: &Instance, load_id: Option<u64>) -> anyhow::Result<Self> {
        let mut dataplane = Dataplane::open(instance)?;
        if instance.load_id() != load_id {
            bail!("portway has been unloaded by another command: nothing left to do here");
        }
        let (sender, receiver) = channel();
        thread::Builder::new()
            .name("collector".into())
            .spawn(move || collect(&mut dataplane, &receiver))
            .context("cannot start a thread")?;
        Ok(Self { _wanted: sender })
    }
}

/// Sweeps until nobody wants it any more.
fn collect(dataplane: &mut Dataplane, wanted: &Receiver<()>) {
    let is_wanted = || wanted.try_recv() != Err(TryRecvError::Disconnected);
    let mut busy = Duration::ZERO;
    loop {
        match sweep_all(dataplane, is_wanted) {
            Ok(sweep) => {
                tracing::debug!("{sweep:?}");
                busy = sweep.busy;
            }
            Err(error) => tracing::warn!("{error:#}; trying again"),
        }
        if wanted.recv_timeout(pause(busy)) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// Sweeps the flows of both IP versions.
fn sweep_all(
    dataplane: &mut Dataplane,
    is_wanted: impl Fn() -> bool + Copy,
) -> anyhow::Result<Sweep> {
    let timeouts = dataplane.read_settings()?.timeouts;
    let backends = &dataplane.backends;
    let v4 = sweep(&mut dataplane.v4.spilled, backends, timeouts, is_wanted)?;
    let v6 = sweep(&mut dataplane.v6.spilled, backends, timeouts, is_wanted)?;
    Ok(Sweep {
        seen: v4.seen + v6.seen,
        removed: v4.removed + v6.removed,
        busy: v4.busy + v6.busy,
    })
}

/// How long to wait after a sweep that has kept a CPU busy for so long.
fn pause(busy: Duration) -> Duration {
    PAUSE.max(busy * IDLENESS)
}

/// Looks at every flow once and removes those that are over, for as long as `is_wanted` says so.
///
/// # Errors
///
/// The kernel refuses.
pub fn sweep<A: IpAddress>(
    flows: &mut HashMap<impl BorrowMut<MapData>, FlowKey<A>, Flow<A>>,
    backends: &Array<MapData, Backend>,
    timeouts: Timeouts,
    is_wanted: impl Fn() -> bool,
) -> anyhow::Result<Sweep> {
    let start = cpu_time()?;
    let mut sweep = Sweep::default();
    let mut liveness = Liveness::of(backends, timeouts)?;
    let mut batches = Batches::default();
    while is_wanted()
        && let Some(batch) = batches.read(flows).context("cannot read the flows")?
    {
        for (key, flow) in batch {
            sweep.seen += 1;
            if liveness.is_over(&flow)? {
                let is_over = |flow: &_| liveness.is_surely_over(flow);
                let removed = remove(flows, &key, is_over).context("cannot remove a flow")?;
                sweep.removed += u64::from(removed);
            }
        }
    }
    sweep.busy = cpu_time()?.saturating_sub(start);
    Ok(sweep)
}

/// A table that others change at any moment.
trait Table<K, V> {
    /// What it has under `key`.
    fn look(&self, key: &K) -> Result<Option<V>, MapError>;

    /// Takes out what it has under `key`.
    fn take(&mut self, key: &K) -> Result<Option<V>, MapError>;

    /// Puts a value under `key` if there is none.
    fn put_back(&mut self, key: &K, value: &V) -> Result<(), MapError>;
}

/// Removes what is under `key` if it is over, and returns whether it was. What has begun since the last look
/// at it shows when it is taken out, and goes back, unless the programs have already made it anew; between
/// the two system calls it is missed by what packets come, which is why there is another look before.
fn remove<K, V>(
    table: &mut impl Table<K, V>,
    key: &K,
    is_over: impl Fn(&V) -> Result<bool, MapError>,
) -> Result<bool, MapError> {
    match table.look(key)? {
        Some(value) if is_over(&value)? => {}
        _ => return Ok(false),
    }
    let Some(taken) = table.take(key)? else {
        return Ok(false);
    };
    let was_over = is_over(&taken);
    if !matches!(was_over, Ok(true)) {
        table.put_back(key, &taken)?;
    }
    was_over
}

impl<K: Pod, V: Pod, M: BorrowMut<MapData>> Table<K, V> for HashMap<M, K, V> {
    fn look(&self, key: &K) -> Result<Option<V>, MapError> {
        match self.get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn take(&mut self, key: &K) -> Result<Option<V>, MapError> {
        Ok(take(self, key)?)
    }

    fn put_back(&mut self, key: &K, value: &V) -> Result<(), MapError> {
        match self.insert(key, value, NO_REPLACEMENT) {
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::EEXIST) =>
            {
                Ok(())
            }
            result => result,
        }
    }
}

/// How long this thread has kept a CPU busy.
fn cpu_time() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A table of one entry. Values below 10 are over; a new connection begins after so many calls.
    struct One {
        entry: Cell<Option<u32>>,
        calls: Cell<u32>,
        begins_after: u32,
    }

    impl One {
        fn new(entry: u32, begins_after: u32) -> Self {
            Self {
                entry: Cell::new(Some(entry)),
                calls: Cell::new(0),
                begins_after,
            }
        }

        fn called(&self) {
            self.calls.set(self.calls.get() + 1);
            if self.calls.get() == self.begins_after {
                self.entry.set(Some(100 + self.calls.get()));
            }
        }
    }

    impl Table<(), u32> for One {
        fn look(&self, (): &()) -> Result<Option<u32>, MapError> {
            let entry = self.entry.get();
            self.called();
            Ok(entry)
        }

        fn take(&mut self, (): &()) -> Result<Option<u32>, MapError> {
            let entry = self.entry.take();
            self.called();
            Ok(entry)
        }

        fn put_back(&mut self, (): &(), value: &u32) -> Result<(), MapError> {
            if self.entry.get().is_none() {
                self.entry.set(Some(*value));
            }
            Ok(())
        }
    }

    fn removed(table: &mut One) -> bool {
        remove(table, &(), |value| Ok(*value < 10)).expect("a verdict")
    }

    #[test]
    fn what_is_over_goes_and_what_lives_is_not_touched() {
        let mut over = One::new(1, u32::MAX);
        assert!(removed(&mut over));
        assert_eq!(over.entry.get(), None);
        let mut alive = One::new(50, u32::MAX);
        assert!(!removed(&mut alive));
        assert_eq!((alive.entry.get(), alive.calls.get()), (Some(50), 1));
    }

    #[test]
    fn a_connection_that_begins_meanwhile_stays() {
        let mut after_the_look = One::new(1, 1);
        assert!(!removed(&mut after_the_look));
        assert_eq!(after_the_look.entry.get(), Some(101));
        let mut after_the_removal = One::new(1, 2);
        assert!(removed(&mut after_the_removal));
        assert_eq!(after_the_removal.entry.get(), Some(102));
    }

    #[test]
    fn what_nobody_can_judge_stays() {
        let mut table = One::new(1, u32::MAX);
        let asked = Cell::new(0);
        let result = remove(&mut table, &(), |_| {
            asked.set(asked.get() + 1);
            if asked.get() == 1 {
                Ok(true)
            } else {
                Err(MapError::KeyNotFound)
            }
        });
        assert!(result.is_err());
        assert_eq!(table.entry.get(), Some(1));
    }

    #[test]
    fn collecting_takes_less_than_a_hundredth_of_a_cpu() {
        for milliseconds in [0, 1, 78, 79, 500, 60_000] {
            let busy = Duration::from_millis(milliseconds);
            assert!(pause(busy) >= PAUSE && pause(busy) > busy * 100);
        }
    }
}
