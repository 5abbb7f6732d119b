//! The bench's eBPF programs, loaded.

use anyhow::{Context, Result, anyhow};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, Map, PerCpuArray, PerCpuValues, xdp::DevMap},
    programs::{ProgramFd, SchedClassifier, TcAttachType, Xdp, tc},
    util::nr_cpus,
};
use bytemuck::{Zeroable, bytes_of};
use dataplane_common::headers::Mac;
use portway_bench_ebpf::{Headers, SAMPLES, Sample, globals, maps};
use portway_tests::netns::Netns;

/// The object file, built by this crate's build script.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portway-bench-ebpf"));

/// What the programs are told. What a program does not look at may be left zero.
#[derive(Debug, Clone, Copy)]
pub struct Constants {
    /// The headers of flow 0.
    pub headers: Headers,
    /// Two to the power of this many flows take turns.
    pub flow_bits: u32,
    /// How many ports are published.
    pub ports: u16,
    /// The index of the interface that frames leave by.
    pub out: u32,
    /// The container's MAC address.
    pub container_mac: Mac,
}

impl Default for Constants {
    fn default() -> Self {
        Self {
            headers: Headers::zeroed(),
            flow_bits: 0,
            ports: 1,
            out: 0,
            container_mac: [0; 6],
        }
    }
}

/// The programs with maps of their own. Dropped, what is attached of them is detached.
pub struct Object(Ebpf);

impl Object {
    /// Loads them.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn load(constants: &Constants) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        loader
            .override_global(globals::HEADERS, bytes_of(&constants.headers), true)
            .override_global(globals::FLOW_BITS, &constants.flow_bits, true)
            .override_global(globals::PORTS, &constants.ports, true)
            .override_global(globals::OUT, &constants.out, true)
            .override_global(globals::CONTAINER_MAC, &constants.container_mac[..], true);
        let ebpf = loader
            .load(OBJECT)
            .context("cannot load the bench's eBPF object")?;
        Ok(Self(ebpf))
    }

    /// One of its XDP programs, loaded.
    ///
    /// # Errors
    /// The verifier refuses it.
    pub fn xdp(&mut self, name: &str) -> Result<&mut Xdp> {
        let program: &mut Xdp = self
            .0
            .program_mut(name)
            .with_context(|| format!("no program {name}"))?
            .try_into()?;
        if program.fd().is_err() {
            program
                .load()
                .with_context(|| format!("cannot load {name}"))?;
        }
        Ok(program)
    }

    /// Attaches one of its TC programs to the ingress of an interface.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn attach_ingress(&mut self, name: &str, netns: &Netns, interface: &str) -> Result<()> {
        let program: &mut SchedClassifier = self
            .0
            .program_mut(name)
            .with_context(|| format!("no program {name}"))?
            .try_into()?;
        program
            .load()
            .with_context(|| format!("cannot load {name}"))?;
        netns
            .run(|| {
                let direct = program.attach(interface, TcAttachType::Ingress);
                direct.or_else(|_| {
                    // Without TCX, before Linux 6.6, there has to be a qdisc.
                    tc::qdisc_add_clsact(interface)?;
                    program.attach(interface, TcAttachType::Ingress)
                })?;
                Ok(())
            })
            .with_context(|| format!("cannot attach {name} to {interface}"))
    }

    /// Has the limit redirect to `interface` of the host `netns`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn redirect_to_container(&mut self, netns: &Netns, interface: &str) -> Result<()> {
        let ifindex = netns.index(interface)?;
        let map = self.0.map_mut(maps::TO_CONTAINER);
        let mut to_container: DevMap<_> = map.context("no map of interfaces")?.try_into()?;
        // The kernel looks for the interface where the caller is.
        netns.run(|| Ok(to_container.set(0, ifindex, None, 0)?))
    }

    /// Has its sender go on with the frame of this running number.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn send_next(&mut self, number: u64) -> Result<()> {
        let map = self.0.map_mut(maps::NEXT).context("no running number")?;
        let mut next: PerCpuArray<_, u64> = map.try_into()?;
        let cpus = nr_cpus().map_err(|(file, error)| anyhow!(error).context(file))?;
        Ok(next.set(0, PerCpuValues::try_from(vec![number; cpus])?, 0)?)
    }

    /// How many of the bench's frames its endpoint program has received.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn arrived(&self) -> Result<u64> {
        let arrived: PerCpuArray<_, u64> = self.map(maps::ARRIVED)?.try_into()?;
        Ok(arrived.get(&0, 0)?.iter().sum())
    }

    /// The first of them, up to [`SAMPLES`].
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn first(&self) -> Result<Vec<Sample>> {
        let first: Array<_, [u8; size_of::<Sample>()]> = self.map(maps::FIRST)?.try_into()?;
        let count = self.arrived()?.min(SAMPLES.into()) as u32;
        (0..count)
            .map(|index| Ok(bytemuck::pod_read_unaligned(&first.get(&index, 0)?)))
            .collect()
    }

    /// One of its programs.
    ///
    /// # Errors
    /// It is not loaded.
    pub fn fd(&self, name: &str) -> Result<&ProgramFd> {
        let program = self.0.program(name);
        Ok(program
            .with_context(|| format!("no program {name}"))?
            .fd()?)
    }

    fn map(&self, name: &str) -> Result<&Map> {
        self.0.map(name).with_context(|| format!("no map {name}"))
    }
}
