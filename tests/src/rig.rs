//! The programs as the kernel has loaded them, run on single packets of the caller's making
//! (`BPF_PROG_TEST_RUN`), with their maps at hand.
//!
//! ```text
//! clients                  host                                   container
//! 10.99.0.2..5  ---------- ext0 10.99.0.1, .11 -- br0 -- c1 ----- 10.98.0.2
//! fd99::2..5               fd99::1, ::11                          fd98::2
//! ```

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use aya::{
    TestRun as _,
    maps::{Array, Map, MapData},
    programs::{ProgramError, SchedClassifier, TestRunOptions},
    util::nr_cpus,
};
use dataplane_common::{
    headers::{Ethernet, Mac},
    layout::{maps, programs},
    published::Backend,
    reason::Counter,
    settings::Settings,
};
use nix::{
    errno::Errno,
    libc,
    time::{ClockId, clock_gettime},
};
use portway::instance::Instance;

use crate::{
    container::{BRIDGE, Container},
    host::Host,
    lab::{EXTERNAL, Lab},
    portway::Portway,
};

mod tables;

pub use tables::{Tables, Version};

/// The MAC of the host's external interface.
pub const EXTERNAL_MAC: Mac = [2, 0, 0, 0, 0x99, 1];

/// The MAC of the bridge, which containers know as their gateway's.
pub const BRIDGE_MAC: Mac = [2, 0, 0, 0, 0x98, 1];

/// The container's MAC.
pub const CONTAINER_MAC: Mac = [2, 0, 0, 0, 0x98, 2];

/// The MAC of clients, and of their router.
pub const CLIENT_MAC: Mac = [2, 0, 0, 0, 0x99, 2];

/// Host ports that lead to the container's 8080, of TCP and UDP and both IP versions.
pub const HOST_PORTS: [u16; 2] = [9000, 9001];

/// One that does so on the host's secondary address only.
pub const BOUND_PORT: u16 = 9002;

/// The container's port.
pub const CONTAINER_PORT: u16 = 8080;

/// The container's MTU, in bytes: less than its link's, as in an overlay network.
pub const CONTAINER_MTU: u32 = 1400;

/// What a program returns to let the stack have the packet (`TC_ACT_UNSPEC`).
pub const PASS: i32 = -1;

/// What it returns to redirect it (`TC_ACT_REDIRECT`).
pub const REDIRECT: i32 = 7;

/// A program of the rig.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `portway_forward`, at the external interface.
    Forward,
    /// `portway_reply`, at the host's end of the container's veth pair.
    Reply,
}

/// What a program has made of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// What it has returned.
    pub action: i32,
    /// The packet's bytes now.
    pub bytes: Vec<u8>,
}

/// A loaded instance whose programs see no packets but those they are run on.
pub struct Rig<'a> {
    host: &'a Host,
    forward: SchedClassifier,
    reply: SchedClassifier,
    counters: MapData,
    cpus: usize,
    /// Its maps.
    pub tables: Tables,
    /// The external interface's index.
    pub external: u32,
    /// The bridge's index.
    pub bridge: u32,
    /// The index of the host's end of the container's veth pair.
    pub veth: u32,
}

/// The lab as the rig wants it: fixed MACs, an MTU that tells the links apart, IPv6.
///
/// # Errors
/// `ip` fails.
pub fn lay_out(lab: &Lab) -> Result<Container> {
    let container = Container::new(&lab.host, 1)?;
    for (netns, interface, mac) in [
        (&*lab.host, EXTERNAL, EXTERNAL_MAC),
        (&*lab.host, BRIDGE, BRIDGE_MAC),
        (&container.netns, "eth0", CONTAINER_MAC),
        (&lab.client, "eth0", CLIENT_MAC),
    ] {
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        netns.ip(&format!("link set {interface} address {mac}"))?;
    }
    lab.host.sysctl("ipv6/conf/all/forwarding", "1")?;
    for (netns, interface, address) in [
        (&*lab.host, EXTERNAL, "fd99::1"),
        (&*lab.host, EXTERNAL, "fd99::11"),
        (&*lab.host, BRIDGE, "fd98::1"),
        (&container.netns, "eth0", "fd98::2"),
    ] {
        netns.ip(&format!("address add {address}/64 dev {interface} nodad"))?;
    }
    lab.host.ip("-6 route replace default via fd99::2")?;
    Ok(container)
}

impl<'a> Rig<'a> {
    /// Loads portway into the lab, which is [laid out](lay_out), publishes [`HOST_PORTS`] and [`BOUND_PORT`]
    /// and takes the programs off their hooks.
    ///
    /// # Errors
    /// portway or `ip` fails.
    pub fn new(lab: &'a Lab, portway: &Portway<'_>, container: &Container) -> Result<Self> {
        let host = &lab.host;
        // Small tables, which are often looked through.
        portway.load("--admission direct --max-flows 65536")?;
        let secondary = crate::lab::HOST_SECONDARY;
        for protocol in ["tcp", "udp"] {
            let to = format!("{}:{CONTAINER_PORT}/{protocol}", container.address);
            for port in HOST_PORTS {
                portway.publish(&format!("{port}:{to}"))?;
            }
            portway.publish(&format!("{secondary}:{BOUND_PORT}:{to}"))?;
        }
        let instance: Instance = portway.instance().parse()?;
        // Neighbour discovery and the like would count.
        for link in fs::read_dir(host.file(instance.links()))? {
            fs::remove_file(link?.path())?;
        }
        for interface in [EXTERNAL, "c1"] {
            // Not there where TCX is.
            let _ = host
                .command("tc")
                .args(["qdisc", "del", "dev", interface, "clsact"])
                .text();
        }
        let program = |name| {
            let path = host.file(instance.program(name));
            SchedClassifier::from_pin(&path).with_context(|| format!("no {}", path.display()))
        };
        let data = |name: &str| {
            let path = host.file(instance.map(name));
            MapData::from_pin(&path).with_context(|| format!("no {}", path.display()))
        };
        let map = |name: &str| -> Result<Map> { Ok(Map::from_map_data(data(name)?)?) };
        let settings: Array<MapData, Settings> = map(maps::SETTINGS)?.try_into()?;
        let backends: Array<MapData, Backend> = map(maps::BACKENDS)?.try_into()?;
        let mut rig = Self {
            host,
            forward: program(programs::FORWARD)?,
            reply: program(programs::REPLY)?,
            counters: data(maps::COUNTERS)?,
            cpus: nr_cpus().map_err(|(file, error)| anyhow!(error).context(file))?,
            tables: Tables::open(map, settings, backends)?,
            external: host.index(EXTERNAL)?,
            bridge: host.index(BRIDGE)?,
            veth: host.index("c1")?,
        };
        rig.tables.adjust()?;
        Ok(rig)
    }

    /// Does `work` where programs can be run: in the host's network namespace.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn run<T: Send>(&mut self, work: impl FnOnce(&mut Self) -> Result<T> + Send) -> Result<T> {
        let host = self.host;
        host.run(|| work(self))
    }

    /// Runs a program on a frame that stands for segments of `segment_size` bytes, or for itself if that is
    /// zero. None if the kernel does not take the frame for one.
    ///
    /// # Errors
    /// The kernel does not run it.
    pub fn test(&self, program: Program, frame: &[u8], segment_size: u32) -> Result<Option<Made>> {
        let (program, ifindex) = match program {
            Program::Forward => (&self.forward, self.external),
            Program::Reply => (&self.reply, self.veth),
        };
        let context = SkbContext {
            ifindex,
            gso_size: segment_size,
            ..bytemuck::Zeroable::zeroed()
        };
        let mut bytes = vec![0; frame.len() + size_of::<Ethernet>()];
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = Some(&mut bytes);
        options.ctx_in = Some(bytemuck::bytes_of(&context));
        match program.test_run(options) {
            Ok(result) => {
                bytes.truncate(result.data_size_out as usize);
                Ok(Some(Made {
                    action: result.return_value as i32,
                    bytes,
                }))
            }
            Err(ProgramError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(Errno::EINVAL as i32) =>
            {
                Ok(None)
            }
            Err(error) => bail!(error),
        }
    }

    /// A counter's sum over all CPUs.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn counter(&self, counter: Counter) -> Result<u64> {
        let key = counter as u32;
        let mut values = vec![0_u64; self.cpus];
        let attr = Element {
            map_fd: self.counters.fd().as_fd().as_raw_fd(),
            padding: 0,
            key: &raw const key as u64,
            value: values.as_mut_ptr() as u64,
            flags: 0,
        };
        // SAFETY: `attr` is as long as said; it points to a key of the map's size and to room for a value
        // of each possible CPU, which outlive the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                LOOKUP_ELEMENT,
                &raw const attr,
                size_of::<Element>(),
            )
        };
        Errno::result(result).context("cannot read a counter")?;
        Ok(values.iter().sum())
    }

    /// All counters, by their indexes.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn counters(&self) -> Result<Vec<u64>> {
        let all = Counter::ALL.iter();
        all.map(|counter| self.counter(*counter)).collect()
    }
}

/// `BPF_MAP_LOOKUP_ELEM` of `enum bpf_cmd`. aya's look-up asks the file system for the number of CPUs every
/// time, which takes longer than to run a program.
const LOOKUP_ELEMENT: libc::c_long = 1;

/// The part of `union bpf_attr` for one element.
#[repr(C)]
struct Element {
    map_fd: i32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `struct __sk_buff` in include/uapi/linux/bpf.h, as far as it can be given (`convert___skb_to_skb` in
/// net/bpf/test_run.c).
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct SkbContext {
    before: [u32; 10],
    ifindex: u32,
    between: [u32; 33],
    gso_size: u32,
    after: [u32; 3],
}

const _: () = assert!(size_of::<SkbContext>() == 192);

/// The monotonic clock as the programs read it, in milliseconds.
///
/// # Errors
/// The kernel has none.
pub fn clock() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)?;
    ensure!(now.tv_sec() >= 0, "a clock before its beginning");
    Ok(now.tv_sec() as u64 * 1000 + now.tv_nsec() as u64 / 1_000_000)
}
