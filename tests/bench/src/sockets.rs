//! Real sockets: TCP between a client outside and a server in a container, over all of the kernel's path at
//! both ends.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use anyhow::{Context, Result, ensure};
use portway_tests::{
    container::Container,
    docker::{self, DockerLab},
    image,
    lab::{HOST, Lab},
    portway::{Portway, Used},
    requirement::Requirement,
};

use crate::{
    bed::{Bed, IDLE},
    busy, contenders,
    cpu::Cpus,
    frame::{FIRST_CONTAINER_PORT, FIRST_PORT},
    model::Better,
    plan::{Contender, Effort, Measure, Plan, Stage},
    room::Room,
    traffic::{
        bulk::{self, Transfer},
        connections, requests,
        server::{Servers, Service},
    },
    way::{Open, Published, Way},
};

/// How long a sample takes.
const SAMPLE: Duration = Duration::from_secs(3);

/// The same in a quick run.
const QUICK_SAMPLE: Duration = Duration::from_millis(300);

/// Connections that requests are made over.
const CONNECTIONS: usize = 64;

/// Those by whom a client outside reaches the container, and docker-proxy.
const WAYS: &[Way] = &[Way::Iptables, Way::Nft, Way::PortwayAuto, Way::PortwayXdp];

/// Those who may be in the way of who reaches it without them.
const BYSTANDERS: &[Way] = &[Way::Iptables, Way::PortwayXdp, Way::PortwayPass];

/// A port for each service.
const PUBLISHED: Published = Published {
    protocol: "tcp",
    ports: Service::ALL.len() as u16,
    flows: CONNECTIONS as u32,
};

/// What client and server do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conversation {
    /// The container receives.
    BulkIn,
    /// The container sends.
    BulkOut,
    /// The container receives from its host.
    BulkFromHost,
    /// One connection after the other.
    Connections,
    /// Requests over lasting connections.
    Requests,
}

/// The scenarios.
pub fn plans() -> Vec<Plan> {
    use Conversation::{BulkFromHost, BulkIn, BulkOut, Connections, Requests};
    let rate = |suffix, title, unit| Measure {
        suffix,
        title,
        unit,
        better: Better::Higher,
    };
    let cost = |suffix, title, unit| Measure {
        suffix,
        title,
        unit,
        better: Better::Lower,
    };
    let plan = |id, title, quick, measures, conversation| Plan {
        id,
        title,
        quick,
        measures,
        prepare: Box::new(move |effort| prepare(effort, conversation)),
    };
    vec![
        plan(
            "tcp-connect",
            "TCP: connect, ask, be answered, close",
            true,
            vec![rate("", "TCP: connections for one request", "per second")],
            Connections,
        ),
        plan(
            "tcp-request",
            "TCP: requests over 64 connections",
            false,
            vec![
                rate("-rate", "TCP: requests over 64 connections", "per second"),
                cost("-p50", "TCP: latency, 50th percentile", "µs"),
                cost("-p99", "TCP: latency, 99th percentile", "µs"),
            ],
            Requests,
        ),
        plan(
            "tcp-bulk-in",
            "TCP: bulk to the container",
            false,
            vec![
                rate("-rate", "TCP: bulk to the container", "Gbit/s"),
                cost("-cpu", "TCP: CPU for bulk to the container", "CPU s per GB"),
            ],
            BulkIn,
        ),
        plan(
            "tcp-bulk-out",
            "TCP: bulk from the container",
            false,
            vec![
                rate("-rate", "TCP: bulk from the container", "Gbit/s"),
                cost(
                    "-cpu",
                    "TCP: CPU for bulk from the container",
                    "CPU s per GB",
                ),
            ],
            BulkOut,
        ),
        plan(
            "tcp-from-host",
            "TCP: bulk from the host to the container, past portway",
            false,
            vec![
                rate("-rate", "TCP: bulk from the host, past portway", "Gbit/s"),
                cost(
                    "-cpu",
                    "TCP: CPU for bulk from the host, past portway",
                    "CPU s per GB",
                ),
            ],
            BulkFromHost,
        ),
    ]
}

fn prepare(effort: Effort, conversation: Conversation) -> Result<Stage> {
    let setting = Rc::new(Setting {
        conversation,
        duration: if effort.quick { QUICK_SAMPLE } else { SAMPLE },
        cpus: Cpus::divide()?,
        _room: Room::make()?,
    });
    let mut stage = Stage::new(conversation.note());
    for &way in conversation.ways() {
        match Place::with(way) {
            Ok(place) => stage.add(Talk::new(way.name(), place, &setting)?),
            // What there may not be yet.
            Err(error) if way.is_xdp() => stage.skip(way.name(), error),
            Err(error) => return Err(error.context(way.name())),
        }
    }
    if conversation == Conversation::BulkFromHost {
        return Ok(stage);
    }
    match Requirement::Docker.missing() {
        Some(why) => stage.skip(contenders::DOCKER_PROXY, why),
        None => {
            let place = Place::with_docker_proxy(&setting.cpus)?;
            stage.add(Talk::new(contenders::DOCKER_PROXY, place, &setting)?);
        }
    }
    Ok(stage)
}

impl Conversation {
    fn ways(self) -> &'static [Way] {
        match self {
            Self::BulkFromHost => BYSTANDERS,
            _ => WAYS,
        }
    }

    fn service(self) -> Service {
        match self {
            Self::BulkIn | Self::BulkFromHost => Service::Sink,
            Self::BulkOut => Service::Source,
            Self::Connections => Service::OneAnswer,
            Self::Requests => Service::Answers,
        }
    }

    fn note(self) -> &'static str {
        match self {
            Self::BulkIn | Self::BulkOut | Self::BulkFromHost => {
                "One connection, client and server on a CPU each. CPU: all that the machine has worked \
                 meanwhile, by 10^9 bytes."
            }
            Self::Connections => {
                "32 at a time: connect, send 64 bytes, receive 64, see the server close, close. Client and \
                 server are a thread each, on a CPU each."
            }
            Self::Requests => {
                "64 bytes there and 64 back, on each connection the next request when the answer is there. \
                 Client and server are a thread each, on a CPU each."
            }
        }
    }

    /// A value for each of the measures. Runs in the namespace of who begins it.
    fn hold(self, to: SocketAddr, duration: Duration) -> Result<Vec<f64>> {
        match self {
            Self::BulkIn | Self::BulkFromHost => cost_of(|| bulk::send(to, duration)),
            Self::BulkOut => cost_of(|| bulk::receive(to, duration)),
            Self::Connections => Ok(vec![connections::rate(to, duration)?]),
            Self::Requests => {
                let answers = requests::talk(to, CONNECTIONS, duration)?;
                let (p50, p99) = (answers.percentile(0.5), answers.percentile(0.99));
                Ok(vec![answers.rate(), p50, p99])
            }
        }
    }
}

/// Gbit/s, and CPU seconds per GB.
fn cost_of(transfer: impl FnOnce() -> Result<Transfer>) -> Result<Vec<f64>> {
    let before = busy::time()?;
    let Transfer { bytes, took } = transfer()?;
    let busy = busy::time()?.saturating_sub(before);
    let gigabytes = bytes as f64 / 1e9;
    Ok(vec![
        8.0 * gigabytes / took.as_secs_f64(),
        busy.as_secs_f64() / gigabytes,
    ])
}

/// What the contenders of a scenario have in common.
struct Setting {
    conversation: Conversation,
    duration: Duration,
    cpus: Cpus,
    _room: Room,
}

/// A contender.
struct Talk {
    name: &'static str,
    place: Place,
    setting: Rc<Setting>,
}

impl Talk {
    /// Makes sure that it works.
    fn new(name: &'static str, place: Place, setting: &Rc<Setting>) -> Result<Self> {
        let talk = Self {
            name,
            place,
            setting: Rc::clone(setting),
        };
        let is_by_portway = setting.conversation != Conversation::BulkFromHost;
        talk.place
            .check(is_by_portway, || talk.hold(QUICK_SAMPLE))
            .with_context(|| format!("{name} does not work"))?;
        Ok(talk)
    }

    fn hold(&self, duration: Duration) -> Result<Vec<f64>> {
        let Setting {
            conversation, cpus, ..
        } = *self.setting;
        let index = conversation.service().index();
        let (netns, to) = match &self.place.hosted {
            Hosted::Plain { bed, .. } if conversation == Conversation::BulkFromHost => {
                let address = bed.container.address;
                (&*bed.lab.host, (address, FIRST_CONTAINER_PORT + index))
            }
            Hosted::Plain { bed, .. } => (&bed.lab.client, (HOST, FIRST_PORT + index)),
            Hosted::Docker(lab) => (&lab.client, (HOST, FIRST_PORT + index)),
        };
        let to = SocketAddr::from(to);
        netns.run(|| {
            let (values, _) = cpus.measure(|| conversation.hold(to, duration))?;
            Ok(values)
        })
    }
}

impl Contender for Talk {
    fn name(&self) -> &str {
        self.name
    }

    fn sample(&mut self) -> Result<Vec<f64>> {
        self.hold(self.setting.duration)
    }
}

/// Where a contender's client and server are.
struct Place {
    _servers: Servers,
    hosted: Hosted,
}

/// The host between them.
enum Hosted {
    /// Publishes one of the ways.
    Plain { bed: Bed, open: Open },
    /// Has a Docker that publishes by docker-proxy alone.
    Docker(DockerLab),
}

impl Place {
    /// A plain lab, as its interfaces come from the kernel.
    fn with(way: Way) -> Result<Self> {
        let lab = Lab::new()?;
        // By a process that lives in it, as in every container, portway finds its network namespace.
        let container = Container::new(&lab.host, 1)?.serve(&[IDLE])?;
        let servers = Servers::start(&container.netns, FIRST_CONTAINER_PORT)?;
        let bed = Bed { lab, container };
        let open = way.open(&bed, PUBLISHED)?;
        Ok(Self {
            _servers: servers,
            hosted: Hosted::Plain { bed, open },
        })
    }

    fn with_docker_proxy(cpus: &Cpus) -> Result<Self> {
        // docker-proxy may use all CPUs.
        let lab = cpus.on_all(DockerLab::without_rules)?;
        let range = |first: u16| format!("{first}-{}", first + (PUBLISHED.ports - 1));
        let (outside, inside) = (range(FIRST_PORT), range(FIRST_CONTAINER_PORT));
        docker::command(&lab.host, "run -d --name servers")
            .args(["-p", &format!("{outside}:{inside}")])
            .args([image::NAME, image::GUEST, "serve"])
            .text()?;
        let netns = docker::netns(&lab.host, "servers")?;
        Ok(Self {
            _servers: Servers::start(&netns, FIRST_CONTAINER_PORT)?,
            hosted: Hosted::Docker(lab),
        })
    }

    /// Does `work`, and sees that portway has a hand in it, or none, if it is there.
    fn check(&self, is_by_portway: bool, work: impl FnOnce() -> Result<Vec<f64>>) -> Result<()> {
        let Hosted::Plain {
            bed,
            open: Open::Portway(instance),
        } = &self.hosted
        else {
            return work().map(drop);
        };
        let portway = Portway::again(&bed.lab.host, instance)?;
        let (_, used) = portway.measure(work)?;
        if is_by_portway {
            ensure!(used.both_ways(), "packets have gone past portway: {used:?}");
        } else {
            ensure!(
                used == Used::NOTHING,
                "packets have gone by portway: {used:?}"
            );
        }
        Ok(())
    }
}
