//! From the start of `docker run -p` to the first packet that takes the fast path.

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use aya::maps::{Map, MapData, PerCpuArray};
use dataplane_common::{layout, reason::Counter};
use portway_tests::{
    daemon::Daemon,
    docker::{self, DockerLab},
    image,
    lab::HOST,
    portway::Portway,
    requirement::Requirement,
};

use crate::{
    contenders::{IPTABLES, PORTWAY_AUTO},
    control::maps,
    model::Better,
    plan::{Contender, Effort, Measure, Plan, Stage},
};

/// The published port.
const PORT: u16 = 9000;

/// How often a datagram is sent, and then looked at what has become of it.
const INTERVAL: Duration = Duration::from_millis(1);

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(20);

/// The scenario.
pub fn plan() -> Plan {
    Plan {
        id: "first-packet",
        title: "From docker run -p to the first packet",
        quick: false,
        measures: vec![Measure {
            suffix: "",
            title: "From `docker run -p` to the first packet",
            unit: "ms",
            better: Better::Lower,
        }],
        prepare: Box::new(prepare),
    }
}

fn prepare(_: Effort) -> Result<Stage> {
    let mut stage = Stage::new(
        "From the start of `docker run -d -p 9000:8080/udp`, while a client sends a datagram each \
               millisecond, each from another port: until one is answered, with Docker alone, and until one is forwarded by portway, whose `portway run` follows Docker.",
    );
    if let Some(why) = Requirement::Docker.missing() {
        stage.skip(IPTABLES, &why);
        stage.skip(PORTWAY_AUTO, &why);
        return Ok(stage);
    }
    let alone = Publishing {
        lab: DockerLab::new()?,
        accelerated: None,
    };
    let lab = DockerLab::new()?;
    let portway = Portway::new(&lab.host)?;
    let run = portway.run_with_docker("")?;
    run.line("portway ", LIMIT)?;
    let forwarded = maps::open(&lab.host, &portway, layout::maps::COUNTERS)?;
    portway.leave();
    let accelerated = Publishing {
        lab,
        accelerated: Some(Accelerated {
            counters: Map::from_map_data(forwarded)?.try_into()?,
            _run: run,
        }),
    };
    stage.add(alone);
    stage.add(accelerated);
    Ok(stage)
}

/// Docker, alone or with portway.
struct Publishing {
    accelerated: Option<Accelerated>,
    lab: DockerLab,
}

/// A running portway.
struct Accelerated {
    counters: PerCpuArray<MapData, u64>,
    _run: Daemon,
}

impl Contender for Publishing {
    fn name(&self) -> &str {
        match self.accelerated {
            Some(_) => PORTWAY_AUTO,
            None => IPTABLES,
        }
    }

    fn sample(&mut self) -> Result<Vec<f64>> {
        let host = &self.lab.host;
        let begin = Instant::now();
        let took = thread::scope(|scope| {
            let docker = scope.spawn(|| {
                docker::command(host, "run -d --name web")
                    .args(["-p", &format!("{PORT}:8080/udp")])
                    .args([image::NAME, image::GUEST, "serve", "udp/8080"])
                    .text()
            });
            let took = self.lab.client.run(|| self.first_packet(begin));
            docker.join().expect("no panic").and(took)
        });
        docker::docker(host, "rm -f web")?;
        Ok(vec![took?.as_secs_f64() * 1e3])
    }
}

impl Publishing {
    /// Sends datagrams until one has got through.
    fn first_packet(&self, begin: Instant) -> Result<Duration> {
        let before = self.forwarded()?;
        while begin.elapsed() < LIMIT {
            let next = Instant::now() + INTERVAL;
            let answered = asked().is_ok();
            let through = match before {
                Some(_) => self.forwarded()? > before,
                None => answered,
            };
            if through {
                return Ok(begin.elapsed());
            }
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        bail!("no packet got through within {LIMIT:?}");
    }

    /// Packets from outside that have taken the fast path, where there is one.
    fn forwarded(&self) -> Result<Option<u64>> {
        let Some(accelerated) = &self.accelerated else {
            return Ok(None);
        };
        let forwarded = accelerated.counters.get(&(Counter::Forwarded as u32), 0)?;
        Ok(Some(forwarded.iter().sum()))
    }
}

/// Sends a datagram from a port of its own and waits a moment for its answer.
fn asked() -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((HOST, PORT))?;
    socket.set_read_timeout(Some(INTERVAL))?;
    socket.send(b"?")?;
    socket.recv(&mut [0; 1]).map(drop)
}
