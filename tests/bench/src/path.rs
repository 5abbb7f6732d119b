//! An open way and its two ends: the client that sends, and the container that answers, drops or reads.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use dataplane_common::headers::Be32;
use portway_bench_ebpf::programs;
use portway_tests::{
    lab::EXTERNAL,
    netns::Netns,
    portway::Portway,
    wait::{self, PATIENCE},
};

use crate::{
    bed::{Bed, INSIDE},
    cpu::Cpus,
    frame::FIRST_CONTAINER_PORT,
    model::Skipped,
    object::{Constants, Object},
    room,
    sender::{Flows, Sender, Traffic},
    traffic::datagrams::Datagrams,
    verify::Expected,
    way::{Open, Way},
};

/// Flows that are established together, so few that none has to make room for another before it is.
const TOGETHER: u32 = 57_344;

/// An answered UDP flow that goes on after this long is a lasting one, to conntrack as to portway (2 s in
/// nf_conntrack_udp_packet, counted in whole seconds).
const LASTING: Duration = Duration::from_secs(3);

/// Frames by which the way of new flows is checked.
const CHECKED: u32 = 512;

/// The parts of a way that is measured.
pub struct Path {
    /// Which way.
    pub way: Way,
    traffic: Traffic,
    sender: Sender,
    inside: Inside,
    /// At the client.
    answers: Object,
    /// What keeps it open.
    pub open: Open,
    /// Where it is.
    pub bed: Bed,
}

/// What becomes of frames in the container.
enum Inside {
    /// They are answered as they come in.
    Answers(Object),
    /// They are dropped as they come in.
    Drops(Object),
    /// They are read from a socket.
    Reads(Datagrams),
}

/// What has become of frames.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// How many have arrived: at the client, if they are answered.
    pub arrived: u64,
    /// CPU time.
    pub took: Duration,
}

impl Path {
    /// Puts a sender at the client and an answering end into the container.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new(way: Way, open: Open, bed: Bed, traffic: Traffic, cpus: Cpus) -> Result<Self> {
        let Bed { lab, container } = &bed;
        let destination = lab.host.mac(EXTERNAL)?;
        Ok(Self {
            way,
            traffic,
            sender: Sender::new(&lab.client, INSIDE, destination, traffic, cpus)?,
            inside: Inside::Answers(end(&container.netns, programs::ECHO)?),
            answers: end(&lab.client, programs::SINK)?,
            open,
            bed,
        })
    }

    /// Checks what has arrived so far, at both ends, and that all flows are established that should be.
    fn check(&self) -> Result<()> {
        let Bed { lab, container } = &self.bed;
        let expected = Expected {
            frame: *self.sender.frame(),
            ports: self.traffic.ports,
            container: self
                .way
                .translates()
                .then(|| Be32::new(container.address.to_bits())),
            container_mac: container.netns.mac(INSIDE)?,
        };
        if let Inside::Answers(answering) = &self.inside {
            expected.check_arrived(&answering.first()?)?;
        }
        expected.check_answered(&self.answers.first()?)?;
        let Open::Portway(instance) = &self.open else {
            return Ok(());
        };
        let status = Portway::again(&lab.host, instance)?.status()?;
        let [forwarded, by_xdp] =
            ["forwarded", "forwarded_xdp"].map(|counter| status.counter(counter));
        // Where two begin at once in one bucket, the second is left to TC.
        let is_as_said = match self.way {
            Way::PortwayXdp | Way::PortwayPass => {
                forwarded > 0 && forwarded - by_xdp <= 1 + forwarded / 1000
            }
            _ => by_xdp == 0,
        };
        ensure!(
            is_as_said,
            "{by_xdp} of {forwarded} packets went by XDP: {:?}",
            status.external
        );
        if let Flows::Turns(flows) = self.traffic.flows {
            let there = status.flows;
            // Of so many that begin at once, a few give way to others before they are established.
            let missing = u64::from(flows).saturating_sub(there);
            ensure!(
                missing <= u64::from(flows) / 1000,
                "portway has {there} flows, not {flows}"
            );
        }
        Ok(())
    }

    /// From now on the container drops what arrives.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn answer_no_more(&mut self) -> Result<()> {
        self.inside = Inside::Drops(end(&self.bed.container.netns, programs::SINK)?);
        Ok(())
    }

    /// From now on a socket in the container reads what arrives.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn read(&mut self) -> Result<()> {
        let netns = &self.bed.container.netns;
        self.inside = Inside::Reads(Datagrams::start(netns, FIRST_CONTAINER_PORT)?);
        Ok(())
    }

    /// Sends frames and counts those that arrive at the far end.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn send(&mut self, count: u32) -> Result<Sent> {
        let before = self.arrived()?;
        let took = self.sender.send(count)?;
        Ok(Sent {
            arrived: self.settle()? - before,
            took,
        })
    }

    /// If each frame begins a flow, makes conntrack forget those that there are: more rounds would need
    /// more room.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn forget_new_flows(&self) -> Result<()> {
        if self.way.is_tracked() && self.traffic.flows == Flows::New {
            room::empty(&self.bed.lab.host)?;
        }
        Ok(())
    }

    fn arrived(&self) -> Result<u64> {
        match &self.inside {
            Inside::Answers(_) => self.answers.arrived(),
            Inside::Drops(sink) => sink.arrived(),
            Inside::Reads(socket) => Ok(socket.received()),
        }
    }

    /// How many frames have arrived once no more do: some may still be in ksoftirqd's hands.
    fn settle(&self) -> Result<u64> {
        let mut last = None;
        wait::until("frames to stop arriving", PATIENCE, || {
            let now = self.arrived()?;
            Ok((last.replace(now) == Some(now)).then_some(now))
        })
    }
}

/// Open ways with the same traffic.
pub struct Paths {
    /// Those that are open.
    pub there: Vec<Path>,
    /// Those that cannot be opened.
    pub skipped: Vec<Skipped>,
}

impl Paths {
    /// Opens these ways, has all flows established, and checks what arrives.
    ///
    /// # Errors
    /// Something is not as it must be.
    pub fn open(ways: &[Way], traffic: Traffic) -> Result<Self> {
        let cpus = Cpus::divide()?;
        let mut paths = Self {
            there: Vec::new(),
            skipped: Vec::new(),
        };
        for &way in ways {
            let bed = Bed::new()?;
            match way.open(&bed, traffic.published()) {
                Ok(open) => {
                    let path = Path::new(way, open, bed, traffic, cpus).context(way.name())?;
                    paths.there.push(path);
                }
                // What there may not be yet.
                Err(error) if way.is_xdp() => {
                    paths.skipped.push(Skipped::new(way.name(), error));
                }
                Err(error) => return Err(error.context(way.name())),
            }
        }
        paths.establish(traffic.flows)?;
        for path in &paths.there {
            path.check().context(path.way.name())?;
        }
        Ok(paths)
    }

    /// Has each flow answered, and answered again when it is old enough to be a lasting one. Where each
    /// frame begins another flow, a few of them.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn establish(&mut self, flows: Flows) -> Result<()> {
        let Flows::Turns(flows) = flows else {
            return self.send(CHECKED);
        };
        for first in (0..flows).step_by(TOGETHER as usize) {
            let count = TOGETHER.min(flows - first);
            self.send(count)?;
            thread::sleep(LASTING);
            for path in &mut self.there {
                path.sender.rewind(first)?;
            }
            self.send(count)?;
        }
        Ok(())
    }

    fn send(&mut self, count: u32) -> Result<()> {
        for path in &mut self.there {
            path.send(count).with_context(|| path.way.name())?;
        }
        Ok(())
    }
}

/// An end at [`INSIDE`].
fn end(netns: &Netns, program: &str) -> Result<Object> {
    let mut object = Object::load(&Constants {
        out: netns.index(INSIDE)?,
        ..Constants::default()
    })?;
    object.attach_ingress(program, netns, INSIDE)?;
    Ok(object)
}
