//! Which of the run's datagrams the kernel drops, and why: told by an eBPF program at the tracepoint that all drops
//! pass, datagram by datagram. Counters of protocols and interfaces would be sums that nobody can take apart, and
//! vanish with a container's interface.

use std::{collections::HashMap, fs};

use anyhow::{Context, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, PerCpuArray, RingBuf},
    programs::RawTracePoint,
};
use bytemuck::pod_read_unaligned;
use portway_tests_ebpf::{Dropped, GROUP, PROGRAM, Stamp, TRACEPOINT, constants, maps};

use super::{btf::Btf, passes::Passes};

/// The object file, built by this crate's build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portway-tests-ebpf"));

/// What the kernel's names of reasons begin with.
const PREFIX: &str = "SKB_DROP_REASON_";

/// The reason of drops that have none: those are called by the function that did it.
const NOT_SPECIFIED: &str = "NOT_SPECIFIED";

/// A look at all drops of this machine.
pub struct Drops {
    ebpf: Ebpf,
    dropped: RingBuf<MapData>,
    /// All there are, told or not.
    passes: Passes,
    /// How many of these there were before the program.
    before: u64,
    reasons: HashMap<u32, String>,
    /// The kernel's functions, by where they begin.
    functions: Vec<(u64, String)>,
}

impl Drops {
    /// Begins to look for datagrams of this run.
    ///
    /// # Errors
    /// The kernel does not tell its types, or refuses the program.
    pub fn watch(run: u64) -> Result<Self> {
        let btf = Btf::of_kernel()?;
        let mut ebpf = EbpfLoader::new()
            .override_global(constants::RUN, &run, true)
            .override_global(
                constants::SKB_HEAD,
                &btf.offset_of("sk_buff", "head")?,
                true,
            )
            .override_global(
                constants::SKB_TAIL,
                &btf.offset_of("sk_buff", "tail")?,
                true,
            )
            .load(OBJECT)
            .context("cannot load the program that looks for drops")?;
        let program: &mut RawTracePoint = ebpf
            .program_mut(PROGRAM)
            .context("no program that looks for drops")?
            .try_into()?;
        program.load()?;
        // Before the program is run for the first time: none that it has dealt with must be missing.
        let passes = Passes::count(GROUP, TRACEPOINT)?;
        program
            .attach(TRACEPOINT)
            .context("cannot look for drops")?;
        let dropped = ebpf.take_map(maps::DROPPED).context("no map of drops")?;
        let reasons = btf.enumerators("skb_drop_reason")?;
        let mut drops = Self {
            ebpf,
            dropped: dropped.try_into()?,
            passes,
            reasons: reasons
                .into_iter()
                .map(|(number, name)| (number, name.trim_start_matches(PREFIX).to_owned()))
                .collect(),
            functions: functions()?,
            before: 0,
        };
        let passed = drops.passes.read()?;
        // Read after, because drops go on: what is taken off must not be too much.
        drops.before = passed.saturating_sub(drops.dealt_with()?);
        Ok(drops)
    }

    /// Every drop since the last look, and its reason.
    pub fn read(&mut self, mut tell: impl FnMut(Stamp, String)) {
        while let Some(bytes) = self.dropped.next() {
            let dropped: Dropped = pod_read_unaligned(&bytes);
            let reason = match self.reasons.get(&dropped.reason) {
                Some(reason) if reason != NOT_SPECIFIED => reason.clone(),
                _ => format!("in {}", function(&self.functions, dropped.location)),
            };
            tell(dropped.stamp, reason);
        }
    }

    /// How many drops nobody knows of whose they were: the program was not run, or there was no room to tell.
    ///
    /// # Errors
    /// The kernel's.
    pub fn untold(&mut self) -> Result<u64> {
        // Read first, because drops go on: what is left must not be too little.
        let dealt_with = self.dealt_with()?;
        let passed = self.passes.read()?;
        Ok(passed.saturating_sub(self.before + dealt_with))
    }

    /// How many the program has been run for, and has told if it had to.
    fn dealt_with(&self) -> Result<u64> {
        let map = self.ebpf.map(maps::DEALT_WITH);
        let map: PerCpuArray<_, u64> = map.context("no count of drops")?.try_into()?;
        Ok(map.get(&0, 0)?.iter().sum())
    }
}

/// What the kernel's functions are called, in order.
fn functions() -> Result<Vec<(u64, String)>> {
    let symbols = fs::read_to_string("/proc/kallsyms").context("the kernel names no functions")?;
    let mut functions: Vec<_> = symbols
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let at = u64::from_str_radix(words.next()?, 16).ok()?;
            let is_function = words.next()?.eq_ignore_ascii_case("t");
            Some((at, words.next()?.to_owned())).filter(|_| is_function)
        })
        .collect();
    functions.sort();
    Ok(functions)
}

fn function(functions: &[(u64, String)], location: u64) -> &str {
    let after = functions.partition_point(|(at, _)| *at <= location);
    let before = after.checked_sub(1);
    before.map_or("the kernel", |index| &functions[index].1)
}
