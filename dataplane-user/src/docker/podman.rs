//! What podman's API, up to 5.4 at least, leaves out of its list of containers: of a range of ports it names the
//! first one (`LibpodToContainer` in podman's `pkg/api/handlers/compat/containers.go`). The inspection of a container
//! has them all.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use bollard::{
    Docker,
    errors::Error,
    models::{ContainerSummary, PortMap, PortSummary, PortSummaryTypeEnum},
};
use futures_util::{StreamExt as _, stream};
use tokio::time::timeout;

use super::{publications::has_published, reader::INSPECTIONS};

/// What podman calls itself among the components of its version.
const COMPONENT: &str = "Podman Engine";

/// How podman inspects a port that is published on any address; its list has none there.
const ANY: &str = "0.0.0.0";

/// Whether the daemon is podman.
///
/// # Errors
/// It does not answer.
pub(super) async fn is_podman(docker: &Docker) -> Result<bool, Error> {
    let components = docker.version().await?.components.unwrap_or_default();
    Ok(components.iter().any(|it| it.name == COMPONENT))
}

/// All ports of running containers, by container id. They stay the same as long as its process does.
#[derive(Debug, Clone, Default)]
pub(super) struct Ports {
    by_container: HashMap<String, Vec<PortSummary>>,
}

impl Ports {
    /// Gives listed containers all their ports, after one request for each that is new. Returns the ids of those that
    /// the daemon does not tell about within `patience`.
    pub(super) async fn complete(
        &mut self,
        docker: &Docker,
        containers: &mut [ContainerSummary],
        patience: Duration,
    ) -> HashSet<String> {
        let running: Vec<String> = containers
            .iter()
            .filter(|container| has_published(container))
            .filter_map(|container| container.id.clone())
            .collect();
        self.by_container.retain(|id, _| running.contains(id));
        let new = running
            .iter()
            .filter(|id| !self.by_container.contains_key(*id))
            .cloned();
        let inspections: Vec<_> = stream::iter(new.collect::<Vec<_>>())
            .map(|id| async move {
                let inspection = timeout(patience, docker.inspect_container(&id, None)).await;
                (id, inspection)
            })
            .buffer_unordered(INSPECTIONS)
            .collect()
            .await;
        let mut busy = HashSet::new();
        let mut inspected = HashMap::new();
        for (id, inspection) in inspections {
            match inspection {
                // One that has gone meanwhile has an event to come.
                Ok(container) => {
                    let ports = container.ok().and_then(|it| it.network_settings?.ports);
                    inspected.insert(id, ports.unwrap_or_default());
                }
                Err(_) => drop(busy.insert(id)),
            }
        }
        for container in containers {
            let (Some(id), Some(ports)) = (&container.id, &mut container.ports) else {
                continue;
            };
            if let Some(inspected) = inspected.get(id) {
                let all = complete(ports, inspected);
                self.by_container.insert(id.clone(), all);
            }
            if let Some(all) = self.by_container.get(id) {
                ports.clone_from(all);
            }
        }
        busy
    }

    /// The container has ended or started: its ports may be others.
    pub(super) fn forget(&mut self, container: &str) {
        self.by_container.remove(container);
    }
}

/// The listed ports and those that only the inspection has, each on the address of the one that comes before it in
/// its range.
fn complete(listed: &[PortSummary], inspected: &PortMap) -> Vec<PortSummary> {
    let mut bound: Vec<_> = inspected
        .iter()
        .filter_map(|(port, bindings)| Some((private(port)?, bindings.as_ref()?)))
        .flat_map(|((port, typ), bindings)| {
            bindings.iter().filter_map(move |binding| {
                Some(PortSummary {
                    ip: binding.host_ip.clone(),
                    private_port: port,
                    public_port: Some(binding.host_port.as_ref()?.parse().ok()?),
                    typ: Some(typ),
                })
            })
        })
        .collect();
    bound.sort_by_key(|port| port.public_port);
    let mut ports = listed.to_vec();
    for mut port in bound {
        let (private, public) = (port.private_port, port.public_port);
        let find = |private: Option<u16>, public: Option<u16>| {
            ports.iter().find(|it| {
                it.typ == port.typ
                    && Some(it.private_port) == private
                    && it.public_port == public
                    && address(it) == address(&port)
            })
        };
        if find(Some(private), public).is_some() {
            continue;
        }
        let before = find(
            private.checked_sub(1),
            public.and_then(|it| it.checked_sub(1)),
        );
        if let Some(before) = before {
            port.ip.clone_from(&before.ip);
        }
        ports.push(port);
    }
    ports
}

fn address(port: &PortSummary) -> &str {
    match port.ip.as_deref() {
        None | Some("") => ANY,
        Some(address) => address,
    }
}

/// `8080/tcp`.
fn private(text: &str) -> Option<(u16, PortSummaryTypeEnum)> {
    let (port, protocol) = text.split_once('/')?;
    let typ = match protocol {
        "tcp" => PortSummaryTypeEnum::TCP,
        "udp" => PortSummaryTypeEnum::UDP,
        "sctp" => PortSummaryTypeEnum::SCTP,
        _ => return None,
    };
    Some((port.parse().ok()?, typ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What podman 5.4 says of `-p 9000:8080 -p 9001:8081 -p 127.0.0.1:9100:8080 -p 9000:8080/udp -p 9010-9012:8080-8082`.
    #[test]
    fn ranges_have_all_their_ports() {
        let listed: Vec<PortSummary> = serde_json::from_value(json!([
            {"PrivatePort": 8080, "PublicPort": 9000, "Type": "tcp"},
            {"PrivatePort": 8080, "PublicPort": 9010, "Type": "tcp"},
            {"PrivatePort": 8080, "PublicPort": 9000, "Type": "udp"},
            {"IP": "127.0.0.1", "PrivatePort": 8080, "PublicPort": 9100, "Type": "tcp"},
        ]))
        .expect("podman's list");
        let inspected: PortMap = serde_json::from_value(json!({
            "8080/tcp": [
                {"HostIp": "0.0.0.0", "HostPort": "9000"},
                {"HostIp": "0.0.0.0", "HostPort": "9010"},
                {"HostIp": "127.0.0.1", "HostPort": "9100"},
            ],
            "8080/udp": [{"HostIp": "0.0.0.0", "HostPort": "9000"}],
            "8081/tcp": [
                {"HostIp": "0.0.0.0", "HostPort": "9001"},
                {"HostIp": "0.0.0.0", "HostPort": "9011"},
            ],
            "8082/tcp": [{"HostIp": "0.0.0.0", "HostPort": "9012"}],
            "9/tcp": null,
        }))
        .expect("podman's inspection");
        let added: Vec<_> = complete(&listed, &inspected)
            .split_off(listed.len())
            .into_iter()
            .map(|port| (port.ip, port.public_port, port.private_port))
            .collect();
        let expected = [(9001, 8081), (9011, 8081), (9012, 8082)]
            .map(|(public, private)| (None, Some(public), private));
        assert_eq!(added, expected, "on any address, as those listed are");
    }

    #[test]
    fn a_list_that_has_them_all_stays() {
        let listed: Vec<PortSummary> = serde_json::from_value(json!([
            {"IP": "0.0.0.0", "PrivatePort": 8080, "PublicPort": 9000, "Type": "tcp"},
            {"IP": "0.0.0.0", "PrivatePort": 8081, "PublicPort": 9001, "Type": "tcp"},
        ]))
        .expect("a list");
        let inspected: PortMap = serde_json::from_value(json!({
            "8080/tcp": [{"HostIp": "0.0.0.0", "HostPort": "9000"}],
            "8081/tcp": [{"HostIp": "0.0.0.0", "HostPort": "9001"}],
        }))
        .expect("an inspection");
        assert_eq!(complete(&listed, &inspected), listed);
    }
}
