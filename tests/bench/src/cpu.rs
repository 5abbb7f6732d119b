//! CPUs: one sends, everything else is kept off it as far as possible; and how long that one has worked.

use std::{fs, panic::resume_unwind, path::PathBuf, thread, time::Duration};

use anyhow::{Context, Result};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

/// The calling thread.
const SELF: Pid = Pid::from_raw(0);

/// The CPUs this process may use, divided.
#[derive(Debug, Clone, Copy)]
pub struct Cpus {
    /// The one that sends.
    pub sending: usize,
    /// Everything else's. The same one if there is no other.
    others: CpuSet,
}

impl Cpus {
    /// The last one sends.
    ///
    /// # Errors
    /// The kernel does not tell which there are.
    pub fn divide() -> Result<Self> {
        let mut others = sched_getaffinity(SELF).context("no CPUs to divide")?;
        let there: Vec<_> = (0..CpuSet::count())
            .filter(|&cpu| others.is_set(cpu).unwrap_or_default())
            .collect();
        let sending = *there.last().context("no CPU to send from")?;
        if there.len() > 1 {
            others.unset(sending)?;
        }
        Ok(Self { sending, others })
    }

    /// Keeps the calling thread, and what it will start, off the CPU that sends.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn keep_off(&self) -> Result<()> {
        sched_setaffinity(SELF, &self.others).context("cannot leave the sending CPU")
    }

    /// Does `work` on a thread that may use all CPUs, as may whatever it starts.
    ///
    /// # Errors
    /// The kernel refuses, or those of `work`.
    pub fn on_all<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let mut all = self.others;
        all.set(self.sending)?;
        thread::scope(|scope| {
            let work = scope.spawn(move || {
                sched_setaffinity(SELF, &all).context("cannot take all CPUs")?;
                work()
            });
            work.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Does `work` on the CPU that sends and nowhere else; the calling thread stays there.
    ///
    /// # Errors
    /// The kernel refuses, or those of `work`.
    pub fn measure<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
        let mut only = CpuSet::new();
        only.set(self.sending)?;
        sched_setaffinity(SELF, &only).context("cannot take the sending CPU")?;
        let clock = Clock::new(self.sending)?;
        let before = clock.read()?;
        let outcome = work()?;
        let after = clock.read()?;
        Ok((outcome, after.saturating_sub(before)))
    }
}

/// How long a CPU has worked for the calling thread: in the thread itself, where most of the softirqs run
/// that it raises, and in the CPU's ksoftirqd, where the rest do.
///
/// A kernel that accounts for interrupts apart (`CONFIG_IRQ_TIME_ACCOUNTING`) takes softirqs out of the
/// thread's time and has them in /proc/stat, in hundredths of a second.
struct Clock {
    ksoftirqd: PathBuf,
    softirq: Option<String>,
}

impl Clock {
    fn new(cpu: usize) -> Result<Self> {
        Ok(Self {
            ksoftirqd: ksoftirqd(cpu)?.join("schedstat"),
            softirq: accounts_for_interrupts_apart().then(|| format!("cpu{cpu} ")),
        })
    }

    fn read(&self) -> Result<Duration> {
        let thread = Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?);
        let schedstat = fs::read_to_string(&self.ksoftirqd)
            .with_context(|| format!("cannot read {}", self.ksoftirqd.display()))?;
        let ksoftirqd = schedstat
            .split_whitespace()
            .next()
            .and_then(|nanoseconds| nanoseconds.parse().ok())
            .map(Duration::from_nanos)
            .context("schedstat without a time")?;
        let softirq = match &self.softirq {
            Some(cpu) => softirq(&fs::read_to_string("/proc/stat")?, cpu)?,
            None => Duration::ZERO,
        };
        Ok(thread + ksoftirqd + softirq)
    }
}

/// The directory of a CPU's ksoftirqd in /proc.
fn ksoftirqd(cpu: usize) -> Result<PathBuf> {
    let wanted = format!("ksoftirqd/{cpu}\n");
    let processes = fs::read_dir("/proc").context("no /proc")?;
    processes
        .flatten()
        .map(|entry| entry.path())
        .find(|path| fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm == wanted))
        .with_context(|| format!("no ksoftirqd/{cpu} in /proc: is this a PID namespace?"))
}

/// The seventh number of a CPU's line is its softirqs' time (proc_stat(5)).
fn softirq(stat: &str, cpu: &str) -> Result<Duration> {
    const TICK: Duration = Duration::from_millis(10);
    let ticks = stat.lines().find_map(|line| {
        line.strip_prefix(cpu)?
            .split_whitespace()
            .nth(6)?
            .parse()
            .ok()
    });
    ticks
        .map(|ticks: u32| TICK * ticks)
        .context("/proc/stat without softirqs")
}

/// What the kernel's configuration says, where it is to be had. Debian's kernels do, and say it in /boot.
fn accounts_for_interrupts_apart() -> bool {
    let release = nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    fs::read_to_string(format!("/boot/config-{release}"))
        .is_ok_and(|config| config.contains("CONFIG_IRQ_TIME_ACCOUNTING=y"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softirqs_are_the_seventh_number() -> Result<()> {
        let stat = "cpu  1 2 3 4 5 6 7 8 9 10\n\
                    cpu1 1084724 21486 426991 771154 9331 0 18229 391 0 0\n\
                    cpu10 0 0 0 0 0 0 1 0 0 0\n";
        assert_eq!(softirq(stat, "cpu1 ")?, Duration::from_millis(182_290));
        assert!(softirq(stat, "cpu2 ").is_err());
        Ok(())
    }

    #[test]
    fn work_takes_cpu_time_and_sleep_does_not() -> Result<()> {
        let cpus = Cpus::divide()?;
        thread::scope(|scope| {
            let measured = scope.spawn(|| {
                let ((), worked) = cpus.measure(|| {
                    let end = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.tv_nsec();
                    while clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.tv_nsec() - end
                        < 20_000_000
                    {
                        std::hint::spin_loop();
                    }
                    Ok(())
                })?;
                let ((), slept) = cpus.measure(|| {
                    thread::sleep(Duration::from_millis(200));
                    Ok(())
                })?;
                Ok((worked, slept))
            });
            let measured: Result<_> = measured.join().expect("no panic");
            let (worked, slept) = measured?;
            assert!(worked >= Duration::from_millis(20), "{worked:?}");
            assert!(slept < Duration::from_millis(150), "{slept:?}");
            Ok(())
        })
    }
}
