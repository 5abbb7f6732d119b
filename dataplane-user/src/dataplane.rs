//! The loaded dataplane: pinned programs and maps. Whoever opens them finds all there is to know.

use std::{
    borrow::Borrow,
    fs,
    hash::{BuildHasher as _, DefaultHasher, Hasher as _, RandomState},
    io,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
};

use anyhow::{Context as _, anyhow, bail};
use aya::{
    EbpfError, EbpfLoader, Pod,
    maps::{Array, DevMap, HashMap, Map, MapData, MapError, PerCpuArray},
    programs::{Program, ProgramError},
};
use dataplane_common::{
    bucket::{Bucket, Slot},
    flow::{Flow, FlowKey, OuterTuple},
    headers::{Be16, Be32, Ip6, Mac},
    layout::{
        LESS_V6, MAX_XDP_INTERFACES, buckets, constants, maps, programs, ring, slots, spilled,
    },
    pod::IpAddress,
    published::{Backend, BoundPort, PORT_SLOTS, PortNotes, PortSlot, Traffic},
    reason::Counter,
    registry::{Hook, HookKey, Record, Row},
    settings::{Settings, XdpInterface, xdp_slot},
    state::Timeouts,
};
use nix::errno::Errno;

use crate::{
    instance::{Instance, Lock},
    kernel,
    signals::Quiet,
    text::encode_text,
};

/// The object file with the programs, built by this crate's build script.
pub(crate) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portway-ebpf"));

/// All pinned maps of an instance, typed.
pub struct Dataplane {
    /// What the controller tells the programs.
    pub settings: Array<MapData, Settings>,
    /// What the programs count, by [`Counter`].
    pub counters: PerCpuArray<MapData, u64>,
    /// Where containers are.
    pub backends: Array<MapData, Backend>,
    /// Traffic by backend.
    pub traffic: PerCpuArray<MapData, Traffic>,
    /// IPv4's own.
    pub v4: FamilyMaps<Be32>,
    /// IPv6's own.
    pub v6: FamilyMaps<Ip6>,
    /// What is published.
    pub rows: HashMap<MapData, u32, Row>,
    /// What is attached where.
    pub hooks: HashMap<MapData, HookKey, Hook>,
    /// How this instance was loaded.
    pub record: Array<MapData, Record>,
    /// The interfaces by which XDP reaches containers.
    devices: DevMap<MapData>,
    /// The interfaces that XDP is taken at.
    xdp_interfaces: Array<MapData, XdpInterface>,
}

/// The maps that an IP version with addresses `A` has for itself.
pub struct FamilyMaps<A: IpAddress> {
    /// Ports published on all addresses.
    pub ports: Array<MapData, PortSlot>,
    /// Ports published on single addresses.
    pub bound_ports: HashMap<MapData, BoundPort<A>, PortSlot>,
    /// What has been noted of ports.
    pub port_notes: Array<MapData, PortNotes>,
    /// The host's own addresses.
    pub local: HashMap<MapData, A, u32>,
    /// Which flows are in which slots.
    pub buckets: Array<MapData, Bucket>,
    /// Flows that are kept, by bucket and way, and behind them those that are opening.
    pub slots: Array<MapData, Slot<A>>,
    /// Established flows that have found no place in their bucket.
    pub spilled: HashMap<MapData, FlowKey<A>, Flow<A>>,
    /// Clients' ports as their containers see them, where these are not the clients' own.
    pub remapped: HashMap<MapData, OuterTuple<A>, Be16>,
    /// When others were last heard in conversations of their own, in seconds of the monotonic clock.
    pub foreign: HashMap<MapData, OuterTuple<A>, u32>,
}

impl<A: IpAddress> FamilyMaps<A> {
    fn open(instance: &Instance, names: &maps::FamilyMaps) -> anyhow::Result<Self> {
        Ok(Self {
            ports: open(instance, names.ports, Some(PORT_SLOTS))?,
            bound_ports: open(instance, names.bound_ports, None)?,
            port_notes: open(instance, names.port_notes, Some(PORT_SLOTS))?,
            local: open(instance, names.local, None)?,
            buckets: open(instance, names.buckets, None)?,
            slots: open(instance, names.slots, None)?,
            spilled: open(instance, names.spilled, None)?,
            remapped: open(instance, names.remapped, None)?,
            foreign: open(instance, names.foreign, None)?,
        })
    }
}

/// What is settled once for the life of a load.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    /// How many IPv4 flows to keep; IPv6 has [`LESS_V6`] times less room.
    pub max_flows: u32,
    /// Whether the programs tell of each new flow.
    pub trace: bool,
}

impl Dataplane {
    /// Creates and pins maps and programs. Nothing is attached yet, nothing published.
    ///
    /// # Errors
    ///
    /// The kernel refuses; then nothing stays pinned.
    pub fn load(instance: &Instance, lock: &Lock, options: LoadOptions) -> anyhow::Result<Self> {
        let _quiet = Quiet::begin()?;
        let loaded = Self::load_pinned(instance, lock, options).map_err(kernel::explain);
        if loaded.is_err() {
            // The error that made it fail is the one worth telling.
            let _ = instance.remove_pins(lock);
        }
        loaded
    }

    fn load_pinned(instance: &Instance, lock: &Lock, options: LoadOptions) -> anyhow::Result<Self> {
        instance.create_folders(lock)?;
        let hash_seed = RandomState::new().hash_one(instance.to_string());
        pin_programs(instance, options, hash_seed, &programs::ALWAYS, |name| {
            instance.program(name)
        })?;
        let mut dataplane = Self::open_maps(instance)?;
        dataplane.update_settings(|settings| settings.timeouts = Timeouts::DEFAULT)?;
        let record = Record {
            version: encode_text(env!("CARGO_PKG_VERSION")),
            build: build(),
            hash_seed,
            namespace: network_namespace()?,
            max_flows: options.max_flows,
            traces: options.trace.into(),
            ..bytemuck::Zeroable::zeroed()
        };
        dataplane
            .record
            .set(0, record, 0)
            .context("cannot write the record")?;
        Ok(dataplane)
    }

    /// Whether the programs are those of another build.
    pub fn is_of_another_build(&self) -> anyhow::Result<bool> {
        Ok(self.read_record()?.build != build())
    }

    /// Loads and pins a program of [`programs::ON_DEMAND`], unless it is there. The caller holds the instance's lock.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn ensure_program(&self, instance: &Instance, name: &'static str) -> anyhow::Result<()> {
        if instance.program(name).exists() {
            return Ok(());
        }
        let _quiet = Quiet::begin()?;
        let hash_seed = self.read_record()?.hash_seed;
        pin_programs(instance, self.options()?, hash_seed, &[name], |name| {
            instance.program(name)
        })
        .map_err(kernel::explain)
    }

    /// Loads and pins this build's programs for the maps that are there, beside those of the build that is
    /// loaded.
    ///
    /// # Errors
    ///
    /// The kernel refuses; then nothing has changed.
    pub fn load_beside(&self, instance: &Instance, lock: &Lock) -> anyhow::Result<()> {
        let _quiet = Quiet::begin()?;
        instance.create_upgrade(lock)?;
        let hash_seed = self.read_record()?.hash_seed;
        let mut names = programs::ALWAYS.to_vec();
        let loaded = |name: &&str| instance.program(name).exists();
        names.extend(programs::ON_DEMAND.into_iter().filter(loaded));
        pin_programs(instance, self.options()?, hash_seed, &names, |name| {
            instance.upgrade(name)
        })
    }

    /// Notes that the programs are this build's.
    pub fn note_build(&mut self) -> anyhow::Result<()> {
        self.update_record(|record| {
            record.version = encode_text(env!("CARGO_PKG_VERSION"));
            record.build = build();
        })
    }

    /// Opens what is loaded.
    ///
    /// # Errors
    ///
    /// Not loaded, or pins that do not have the layout this program knows.
    pub fn open(instance: &Instance) -> anyhow::Result<Self> {
        if !instance.is_loaded()? {
            bail!("instance {instance} is not loaded: run `portway load` or `portway run` first");
        }
        let dataplane = Self::open_maps(instance)?;
        dataplane.check_namespace(instance)?;
        Ok(dataplane)
    }

    /// Refuses to touch an instance of another network namespace: interfaces have other indexes there.
    pub fn check_namespace(&self, instance: &Instance) -> anyhow::Result<()> {
        let record = self.read_record()?;
        if record.namespace == 0 || record.namespace == network_namespace()? {
            return Ok(());
        }
        bail!(
            "instance {instance} belongs to another network namespace ({}): go there, or use --instance \
             with another name",
            record.namespace
        )
    }

    /// Opens what is pinned, be it complete or not.
    pub fn open_maps(instance: &Instance) -> anyhow::Result<Self> {
        Ok(Self {
            settings: open(instance, maps::SETTINGS, Some(1))?,
            counters: open(instance, maps::COUNTERS, Some(Counter::ALL.len() as u32))?,
            backends: open(instance, maps::BACKENDS, None)?,
            traffic: open(instance, maps::TRAFFIC, None)?,
            v4: FamilyMaps::open(instance, &maps::V4)?,
            v6: FamilyMaps::open(instance, &maps::V6)?,
            rows: open(instance, maps::ROWS, None)?,
            hooks: open(instance, maps::HOOKS, None)?,
            record: open(instance, maps::RECORD, Some(1))?,
            devices: open(instance, maps::DEVICES, None)?,
            xdp_interfaces: open(instance, maps::XDP_INTERFACES, Some(MAX_XDP_INTERFACES))?,
        })
    }

    /// What the controller has noted about this instance.
    pub fn read_record(&self) -> anyhow::Result<Record> {
        self.record.get(&0, 0).context("cannot read the record")
    }

    /// Changes what is noted. The caller holds the instance's lock.
    pub fn update_record(&mut self, change: impl FnOnce(&mut Record)) -> anyhow::Result<()> {
        let mut record = self.read_record()?;
        change(&mut record);
        self.record
            .set(0, record, 0)
            .context("cannot write the record")
    }

    /// How it was loaded.
    pub fn options(&self) -> anyhow::Result<LoadOptions> {
        let record = self.read_record()?;
        Ok(LoadOptions {
            max_flows: record.max_flows,
            trace: record.traces == 1,
        })
    }

    /// What the programs are told.
    pub fn read_settings(&self) -> anyhow::Result<Settings> {
        self.settings.get(&0, 0).context("cannot read the settings")
    }

    /// Changes what the programs are told; writes nothing where nothing changes. The caller holds the
    /// instance's lock.
    pub fn update_settings(&mut self, change: impl FnOnce(&mut Settings)) -> anyhow::Result<()> {
        let before = self.read_settings()?;
        let mut settings = before;
        change(&mut settings);
        if settings == before {
            return Ok(());
        }
        self.settings
            .set(0, settings, 0)
            .context("cannot write the settings")
    }

    /// A counter's sum over all CPUs. What XDP has forwarded, which the programs count apart, is among what was
    /// forwarded.
    pub fn counter(&self, counter: Counter) -> Result<u64, MapError> {
        let count = self.counters.get(&(counter as u32), 0)?.iter().sum();
        Ok(match counter {
            Counter::Forwarded => count + self.counter(Counter::ForwardedByXdp)?,
            _ => count,
        })
    }

    /// The interface by which XDP reaches a backend.
    pub fn device(&self, backend: u32) -> anyhow::Result<Option<u32>> {
        match self.devices.get(backend, 0) {
            Ok(device) => Ok(Some(device.if_index)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error).context("cannot read an interface for XDP"),
        }
    }

    /// Lets XDP reach a backend by this interface, or not at all; writes nothing where nothing changes.
    pub fn set_device(&mut self, backend: u32, ifindex: Option<u32>) -> anyhow::Result<()> {
        if self.device(backend)? == ifindex {
            return Ok(());
        }
        // The kernel takes zero for none (`__dev_map_update_elem`, kernel/bpf/devmap.c).
        self.devices
            .set(backend, ifindex.unwrap_or(0), None, 0)
            .context("cannot write an interface for XDP")
    }

    /// The interface that has the slot of this one in the table of those with XDP.
    pub fn xdp_slot_owner(&self, ifindex: u32) -> anyhow::Result<Option<u32>> {
        let slot = self.xdp_interfaces.get(&xdp_slot(ifindex), 0)?;
        Ok((slot.ifindex != 0).then_some(slot.ifindex))
    }

    /// Tells the XDP program which frames on an interface are the host's; writes nothing where nothing
    /// changes.
    pub fn write_xdp_interface(&mut self, ifindex: u32, mac: Mac) -> anyhow::Result<()> {
        let interface = XdpInterface {
            ifindex,
            mac,
            reserved: 0,
        };
        let slot = xdp_slot(ifindex);
        if self.xdp_interfaces.get(&slot, 0)? == interface {
            return Ok(());
        }
        self.xdp_interfaces
            .set(slot, interface, 0)
            .context("cannot write an interface with XDP")
    }

    /// Has it know nothing of an interface any more.
    pub fn clear_xdp_interface(&mut self, ifindex: u32) -> anyhow::Result<()> {
        if self.xdp_slot_owner(ifindex)? != Some(ifindex) {
            return Ok(());
        }
        self.xdp_interfaces
            .set(xdp_slot(ifindex), XdpInterface::default(), 0)
            .context("cannot write an interface with XDP")
    }

    /// A backend's traffic, summed over all CPUs.
    pub fn traffic_of(&self, backend: u32) -> Result<Traffic, MapError> {
        let mut sum = Traffic::default();
        for cpu in self.traffic.get(&backend, 0)?.iter() {
            sum.packets_in += cpu.packets_in;
            sum.packets_out += cpu.packets_out;
            sum.bytes_in += cpu.bytes_in;
            sum.bytes_out += cpu.bytes_out;
        }
        Ok(sum)
    }
}

/// Creates the maps, unless they are pinned already, and pins them and the programs that are `wanted` by name, where
/// `path` says.
fn pin_programs(
    instance: &Instance,
    options: LoadOptions,
    hash_seed: u64,
    wanted: &[&'static str],
    path: impl Fn(&str) -> PathBuf,
) -> anyhow::Result<()> {
    let mut loader = EbpfLoader::new();
    let max_flows = [options.max_flows, options.max_flows / LESS_V6];
    let bucket_counts = max_flows.map(buckets);
    let ring_sizes = max_flows.map(ring);
    let families = [
        (
            &maps::V4,
            constants::BUCKET_COUNT_V4,
            constants::RING_SIZE_V4,
        ),
        (
            &maps::V6,
            constants::BUCKET_COUNT_V6,
            constants::RING_SIZE_V6,
        ),
    ];
    for (index, (names, bucket_count, ring_size)) in families.into_iter().enumerate() {
        loader.map_max_entries(names.buckets, bucket_counts[index]);
        loader.map_max_entries(names.slots, slots(max_flows[index]));
        loader.map_max_entries(names.spilled, spilled(max_flows[index]));
        loader.override_global(bucket_count, &bucket_counts[index], true);
        loader.override_global(ring_size, &ring_sizes[index], true);
    }
    loader.override_global(constants::HASH_SEED, &hash_seed, true);
    // A constant by the time of verification: what is above the level costs nothing.
    let log_level = if options.trace {
        log::Level::Info as u8
    } else {
        0
    };
    loader.override_global(aya_log::LEVEL, &log_level, false);
    for name in maps::all() {
        loader.map_pin_path(name, instance.map(name));
    }
    let mut ebpf = loader.load(OBJECT).map_err(no_maps)?;
    for &name in wanted {
        let program = ebpf
            .program_mut(name)
            .ok_or_else(|| anyhow!("the eBPF object lacks the program {name}"))?;
        let loaded = match program {
            Program::Xdp(program) => program.load(),
            Program::SchedClassifier(program) => program.load(),
            _ => bail!("the eBPF object has {name} as a program of another type"),
        };
        loaded.map_err(|error| refusal(name, error))?;
        program
            .pin(path(name))
            .with_context(|| format!("cannot pin the eBPF program {name}"))?;
    }
    Ok(())
}

/// A number that tells this build's programs from another's.
fn build() -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(OBJECT);
    hasher.finish()
}

/// Why there are no maps, and what may be done about it.
fn no_maps(error: EbpfError) -> anyhow::Error {
    let error = anyhow::Error::new(error);
    let mut causes = error.chain();
    let is_memory_short = causes.any(|cause| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.raw_os_error() == Some(Errno::ENOMEM as i32))
    });
    error.context(if is_memory_short {
        "cannot create the eBPF maps: not enough memory; with a smaller --max-flows they need less"
    } else {
        "cannot create the eBPF maps: is this process allowed to use BPF?"
    })
}

/// A program's refusal in one line; the verifier's whole log goes to the debug log.
fn refusal(name: &str, error: ProgramError) -> anyhow::Error {
    let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    else {
        return anyhow!(error).context(format!("the kernel refuses the eBPF program {name}"));
    };
    let log = verifier_log.to_string();
    tracing::debug!("{log}");
    match log.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(last) => anyhow!(
            "the kernel refuses the eBPF program {name}: {io_error}: {last}; PORTWAY_LOG=debug shows why"
        ),
        None => anyhow!("the kernel refuses the eBPF program {name}: {io_error}"),
    }
}

/// All entries of a hash map. Others may change it meanwhile: what is removed while this runs is left
/// out, and nothing is listed twice.
pub fn entries<K, V>(map: &HashMap<impl Borrow<MapData>, K, V>) -> Result<Vec<(K, V)>, MapError>
where
    K: Pod + Eq + std::hash::Hash,
    V: Pod,
{
    let mut seen = std::collections::HashMap::new();
    for entry in map.iter() {
        match entry {
            Ok((key, value)) => {
                seen.insert(key, value);
            }
            Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(seen.into_iter().collect())
}

/// Opens a pinned map as the type wanted. aya compares key and value sizes, which a pin alone does not
/// guarantee; the length is compared here where the programs' index arithmetic depends on it.
fn open<T>(instance: &Instance, name: &str, length: Option<u32>) -> anyhow::Result<T>
where
    T: TryFrom<Map>,
    T::Error: std::error::Error + Send + Sync + 'static,
{
    let path = instance.map(name);
    let foreign = || {
        format!(
            "{} is not the map this version of portway expects: run `portway unload`, then load again",
            path.display()
        )
    };
    let data = MapData::from_pin(&path)
        .with_context(|| format!("cannot open {}: run `portway unload`", path.display()))?;
    let found = data.info().with_context(foreign)?.max_entries();
    if length.is_some_and(|length| length != found) {
        bail!(foreign());
    }
    T::try_from(Map::from_map_data(data).with_context(foreign)?).with_context(foreign)
}

/// The network namespace of this process, by inode.
fn network_namespace() -> anyhow::Result<u32> {
    let metadata = fs::metadata("/proc/self/ns/net")
        .context("cannot tell the network namespace: is /proc mounted?")?;
    // The kernel numbers namespaces with 32 bits (`ns_common::inum`).
    Ok(metadata.ino() as u32)
}
