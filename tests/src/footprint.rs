//! What portway has in the kernel, and whether it is gone. Found by following pins to maps, maps to
//! programs and programs to links, so that other portways on the machine do not matter.

use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use aya::{
    maps::MapInfo,
    programs::{ProgramInfo, links::LinkInfo, loaded_links, loaded_programs},
};

use portway::netlink::netdev::{XdpFeatures, xdp_features};

use crate::{
    host::Host,
    wait::{self, PATIENCE},
};

/// Where pins are, in a host.
const BPFFS: &str = "/sys/fs/bpf";

/// What the kernel itself puts there.
const KERNELS_OWN: [&str; 2] = ["maps.debug", "progs.debug"];

/// The folder of all instances, which may stay when it is empty.
const INSTANCES: &str = "portway";

/// Kernel ids of what hangs on a host's pins; the kernel does not give them to anything else soon.
#[derive(Debug, Clone, Default)]
pub struct Footprint {
    /// Every path below the host's bpffs that somebody has made.
    pub pins: Vec<PathBuf>,
    maps: BTreeSet<u32>,
    programs: BTreeSet<u32>,
    links: BTreeSet<u32>,
    /// The qdiscs portway's programs may hang on.
    clsact: Vec<String>,
    /// The interfaces with an XDP program.
    xdp: Vec<String>,
    /// The veths, by index, that take frames from XDP, because somebody has turned their peers' GRO on. None
    /// where the kernel does not tell (before Linux 6.3).
    gro: BTreeSet<u32>,
}

impl Footprint {
    /// Looks at what `host` has now.
    ///
    /// # Errors
    /// The kernel's.
    pub fn of(host: &Host) -> Result<Self> {
        let mut found = Self {
            clsact: clsact(host)?,
            xdp: xdp(host)?,
            gro: gro(host)?,
            ..Self::default()
        };
        let bpffs = host.file(BPFFS);
        collect(&bpffs, &mut found.pins)?;
        let expected = KERNELS_OWN.iter().chain([&INSTANCES]);
        let expected: Vec<_> = expected.map(|name| bpffs.join(name)).collect();
        found.pins.retain(|pin| !expected.contains(pin));
        for pin in &found.pins {
            // Not every pin is a map's.
            if let Ok(map) = MapInfo::from_pin(pin) {
                found.maps.insert(map.id());
            } else if let Ok(program) = ProgramInfo::from_pin(pin) {
                found.programs.insert(program.id());
            }
        }
        for program in loaded_programs().flatten() {
            // One that is unloaded under our eyes is nobody's.
            let maps = program.map_ids().ok().flatten().unwrap_or_default();
            if maps.iter().any(|map| found.maps.contains(map)) {
                found.programs.insert(program.id());
            }
            if found.programs.contains(&program.id()) {
                found.maps.extend(maps);
            }
        }
        for link in loaded_links().flatten() {
            if found.programs.contains(&link.program_id()) {
                found.links.insert(link.id());
            }
        }
        Ok(found)
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.pins.is_empty()
            && self.maps.is_empty()
            && self.programs.is_empty()
            && self.links.is_empty()
            && self.clsact.is_empty()
            && self.xdp.is_empty()
            && self.gro.is_empty()
    }

    /// How many programs are loaded.
    pub fn programs(&self) -> usize {
        self.programs.len()
    }

    /// What of this is still there, together with what `host` has now.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remains(&self, host: &Host) -> Result<Self> {
        let mut now = Self::of(host)?;
        let maps = ids(aya::maps::loaded_maps(), MapInfo::id);
        let programs = ids(loaded_programs(), ProgramInfo::id);
        let links = ids(loaded_links(), LinkInfo::id);
        now.maps.extend(self.maps.intersection(&maps));
        now.programs.extend(self.programs.intersection(&programs));
        now.links.extend(self.links.intersection(&links));
        Ok(now)
    }

    /// Waits until none of this is there and the host has nothing new. The kernel frees programs and
    /// maps a moment after their last user is gone.
    ///
    /// # Errors
    /// Something stays.
    pub fn wait_gone(&self, host: &Host) -> Result<()> {
        let mut rest = Self::default();
        let gone = wait::until_true("nothing of portway left", PATIENCE, || {
            rest = self.remains(host)?;
            Ok(rest.is_empty())
        });
        gone.with_context(|| format!("left behind: {rest}"))
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pins: Vec<_> = self.pins.iter().filter_map(|pin| pin.file_name()).collect();
        write!(
            f,
            "pins {pins:?}, maps {:?}, programs {:?}, links {:?}, qdiscs {:?}, XDP {:?}, GRO {:?}",
            self.maps, self.programs, self.links, self.clsact, self.xdp, self.gro
        )
    }
}

/// Checks that `host` has nothing of portway.
///
/// # Errors
/// It has; with what.
pub fn ensure_none(host: &Host) -> Result<()> {
    let found = Footprint::of(host)?;
    if !found.is_empty() {
        bail!("left behind: {found}");
    }
    Ok(())
}

fn ids<T, E>(all: impl Iterator<Item = Result<T, E>>, id: impl Fn(&T) -> u32) -> BTreeSet<u32> {
    all.flatten().map(|one| id(&one)).collect()
}

/// Every path below a folder, which may be missing.
fn collect(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, paths)?;
        }
        paths.push(path);
    }
    Ok(())
}

/// The lines of `ip link show` about interfaces with an XDP program.
fn xdp(host: &Host) -> Result<Vec<String>> {
    let links = host.ip("-o link show")?;
    let with_xdp = links.lines().filter(|line| line.contains("prog/xdp"));
    Ok(with_xdp.map(str::to_owned).collect())
}

fn gro(host: &Host) -> Result<BTreeSet<u32>> {
    // Other devices take frames as they are.
    let veths = host.ip("-o link show type veth")?;
    let veths: BTreeSet<u32> = veths
        .lines()
        .filter_map(|line| line.split(':').next()?.parse().ok())
        .collect();
    let features = host.run(xdp_features)?.unwrap_or_default().into_iter();
    Ok(features
        .filter(|(_, features)| features.has(XdpFeatures::TARGET))
        .map(|(ifindex, _)| ifindex)
        .filter(|ifindex| veths.contains(ifindex))
        .collect())
}

/// The lines of `tc qdisc show` about clsact.
fn clsact(host: &Host) -> Result<Vec<String>> {
    let qdiscs = host.command("tc").args(["qdisc", "show"]).text()?;
    let clsact = qdiscs.lines().filter(|line| line.contains("clsact"));
    Ok(clsact.map(str::to_owned).collect())
}
