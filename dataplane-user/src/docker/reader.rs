//! One full read of what a Docker daemon knows.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use bollard::{Docker, errors::Error};
use futures_util::{StreamExt as _, stream};
use tokio::{task::spawn_blocking, time::timeout};

use super::{
    gateway::DefaultRoutes,
    podman,
    publications::{Facts, Networks, ambiguous},
    unsettled::Unsettled,
};
use crate::firewall::{Family, look_for_translation};

/// Inspections under way at once.
pub(super) const INSPECTIONS: usize = 8;

/// What stays true from one read to the next, so that most reads are a single request.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// Networks do not change, they only come and go.
    networks: Networks,
    /// Found out with the networks: it is settled when a daemon starts.
    proxies_v6: bool,
    /// The main processes of containers with several networks, by container id. They say which
    /// network's port mappings are in force without asking the daemon, whose answer about a
    /// container waits for whatever it is doing to that container.
    pids: HashMap<String, u32>,
    /// Of podman's containers; none where the daemon is Docker, whose list has all ports.
    ports: Option<podman::Ports>,
}

/// A read's outcome.
pub(super) struct Read {
    pub facts: Facts,
    /// Containers found with several networks, by id.
    pids: HashMap<String, u32>,
    /// As [`Known::ports`].
    ports: Option<podman::Ports>,
}

impl Known {
    /// What is known at the beginning.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub(super) async fn of(docker: &Docker) -> Result<Self, Error> {
        let is_podman = podman::is_podman(docker).await?;
        Ok(Self {
            ports: is_podman.then(podman::Ports::default),
            ..Self::default()
        })
    }

    /// Takes over what a read has found, but no process of the containers that `changed` meanwhile.
    pub(super) fn learn(&mut self, read: &Read, changed: &HashSet<String>) {
        self.networks = read.facts.networks.clone();
        self.proxies_v6 = read.facts.proxies_v6;
        self.pids.clone_from(&read.pids);
        self.ports.clone_from(&read.ports);
        for container in changed {
            self.forget(container);
        }
    }

    /// The container has ended or started: its process is another one.
    pub(super) fn forget(&mut self, container: &str) {
        self.pids.remove(container);
        if let Some(ports) = &mut self.ports {
            ports.forget(container);
        }
    }
}

/// Reads everything: one request, one more if there are networks not known yet, and one for each
/// container with several networks that is new, with podman for each that is new. The daemon has
/// `patience` for each of the latter; a container that it is busy with is left out, and named in
/// [`Facts::undecided`].
pub(super) async fn read(
    docker: Docker,
    known: Known,
    unsettled: Unsettled,
    patience: Duration,
) -> Result<Read, Error> {
    let mut containers = docker.list_containers(None).await?;
    let (networks, proxies_v6) = if known.networks.cover(&containers) {
        (known.networks, known.proxies_v6)
    } else {
        let networks = Networks::new(&docker.list_networks(None).await?);
        let proxies_v6 = networks.have_v6() && !has_rules(Family::V6).await;
        (networks, proxies_v6)
    };
    let mut ports = known.ports;
    let undecided = match &mut ports {
        Some(ports) => ports.complete(&docker, &mut containers, patience).await,
        None => HashSet::new(),
    };
    let ids: Vec<String> = ambiguous(&containers, &networks)
        .filter(|id| !unsettled.container_ended(id))
        .map(str::to_owned)
        .collect();
    let found: Vec<(String, Process)> = stream::iter(ids)
        .map(|id| {
            let known = known.pids.get(&id).copied();
            let docker = &docker;
            async move { (id.clone(), process(docker, &id, known, patience).await) }
        })
        .buffer_unordered(INSPECTIONS)
        .collect()
        .await;
    let mut read = Read {
        facts: Facts {
            containers,
            networks,
            proxies_v6,
            undecided,
            ..Facts::default()
        },
        pids: HashMap::new(),
        ports,
    };
    for (id, process) in found {
        match process {
            Process::Seen(pid, routes) => {
                read.pids.insert(id.clone(), pid);
                read.facts.routes.insert(id, routes);
            }
            Process::Unseen => {}
            Process::Busy => {
                read.facts.undecided.insert(id);
            }
        }
    }
    Ok(read)
}

/// Whether the daemon publishes by rules, as far as can be told.
async fn has_rules(family: Family) -> bool {
    let looked = spawn_blocking(move || look_for_translation(family)).await;
    looked.ok().flatten().unwrap_or(true)
}

/// What is known about a container's main process.
enum Process {
    /// Its id, and the default routes it sees.
    Seen(u32, DefaultRoutes),
    /// It has just ended, or is out of sight: portway and the daemon see different processes.
    Unseen,
    /// The daemon does not answer: it is about to start or stop the container.
    Busy,
}

async fn process(docker: &Docker, id: &str, known: Option<u32>, patience: Duration) -> Process {
    if let Some(pid) = known
        && let Ok(routes) = DefaultRoutes::of_process(pid)
    {
        return Process::Seen(pid, routes);
    }
    let Ok(answer) = timeout(patience, docker.inspect_container(id, None)).await else {
        return Process::Busy;
    };
    let pid = answer.ok().and_then(|container| container.state?.pid);
    let Some(pid) = pid
        .and_then(|pid| u32::try_from(pid).ok())
        .filter(|pid| *pid != 0)
    else {
        return Process::Unseen;
    };
    match DefaultRoutes::of_process(pid) {
        Ok(routes) => Process::Seen(pid, routes),
        Err(_) => Process::Unseen,
    }
}
