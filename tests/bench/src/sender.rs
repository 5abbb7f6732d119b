//! Sends frames from the client, as fast as the CPU can have them received.
//!
//! The kernel runs an XDP program on a frame again and again (`BPF_PROG_TEST_RUN` with live frames), and the
//! program sends the frame each time. The receiving end, veth's NAPI, runs on the same CPU, in the same thread
//! or in ksoftirqd: their time is all the time that a frame takes on its way.

use std::time::Duration;

use anyhow::{Context, Result};
use aya::{
    TestRun as _,
    programs::{TestRunAttrs, TestRunOptions},
};
use portway_bench_ebpf::{SHORTEST, programs};
use portway_tests::{lab::HOST, netns::Netns};

use crate::{
    cpu::Cpus,
    frame::Frame,
    object::{Constants, Object},
    way::Published,
};

/// Frames that are sent before their receiver has its turn. A veth's ring has room for 256.
const BATCH: u32 = 64;

/// A sender at an interface.
pub struct Sender {
    netns: Netns,
    cpus: Cpus,
    object: Object,
    frame: Frame,
}

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Which flows.
    pub flows: Flows,
    /// To how many published ports.
    pub ports: u16,
    /// Frames of this many bytes.
    pub length: usize,
}

/// Flows that frames belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flows {
    /// This many in turn, a power of two.
    Turns(u32),
    /// Each frame begins another one.
    New,
}

/// A few flows, which all caches have room for.
pub const FEW: Flows = Flows::Turns(64);

/// More than they have.
pub const MANY: Flows = Flows::Turns(1 << 20);

impl Traffic {
    /// In the shortest frames that there are.
    pub const fn short(flows: Flows, ports: u16) -> Self {
        Self {
            flows,
            ports,
            length: SHORTEST,
        }
    }

    /// What it needs.
    pub fn published(self) -> Published {
        Published {
            protocol: "udp",
            ports: self.ports,
            flows: match self.flows {
                Flows::Turns(flows) => flows,
                // They may make room for each other.
                Flows::New => 0,
            },
        }
    }
}

impl Flows {
    /// Two to the power of this many take turns.
    fn bits(self) -> u32 {
        match self {
            Self::Turns(count) => count.ilog2(),
            Self::New => u32::BITS,
        }
    }
}

impl Sender {
    /// At `interface` of the client `netns`, to the host's interface of the MAC address `destination`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new(
        netns: &Netns,
        interface: &str,
        destination: [u8; 6],
        traffic: Traffic,
        cpus: Cpus,
    ) -> Result<Self> {
        let frame = Frame::new(netns.mac(interface)?, destination, HOST, traffic.length);
        let mut object = Object::load(&Constants {
            headers: frame.headers,
            flow_bits: traffic.flows.bits(),
            ports: traffic.ports,
            out: netns.index(interface)?,
            ..Constants::default()
        })?;
        object.xdp(programs::SEND)?;
        Ok(Self {
            netns: netns.clone(),
            cpus,
            object,
            frame,
        })
    }

    /// A frame of flow 0.
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// Has the frame with this running number be the next.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn rewind(&mut self, number: u32) -> Result<()> {
        self.object.send_next(number.into())
    }

    /// Sends this many frames, and tells the CPU time that it took to send and receive them.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn send(&mut self, count: u32) -> Result<Duration> {
        let bytes = self.frame.bytes();
        let (cpus, program) = (self.cpus, self.object.xdp(programs::SEND)?);
        let ((), took) = self.netns.run(|| {
            cpus.measure(|| {
                let options = TestRunOptions {
                    data_in: Some(&bytes),
                    repeat: count,
                    attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                    ..TestRunOptions::new()
                };
                program.test_run(options).context("cannot send")?;
                Ok(())
            })
        })?;
        Ok(took)
    }
}
