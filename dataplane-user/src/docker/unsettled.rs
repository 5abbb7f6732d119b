//! Events that Docker's list of containers does not show yet.
//!
//! Docker announces some changes before its list knows them: a container's death up to and including
//! 20.10 at least (`handleContainerExit` in `daemon/monitor.go` logs `die`, tears the network down
//! and saves the state last; 28 has turned that round), a network's connection and disconnection in
//! every version (`ConnectToNetwork` in `daemon/container_operations.go`). By then the address may
//! belong to somebody else. So what an event has ended is left out of what the list says, until the
//! daemon has let go of the container's lock and the list is right again.

use std::collections::HashMap;

use bollard::models::{EventMessage, EventMessageTypeEnum};

/// What has ended: a container, or its foot in one network.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Ended {
    container: String,
    network: Option<String>,
}

/// The ended things that a list may still show. Events are numbered in the order they came in.
#[derive(Debug, Clone, Default)]
pub struct Unsettled {
    ended: HashMap<Ended, u64>,
    last: u64,
}

/// What to wait for until the list shows an event: the daemon's answer about `container`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Barrier {
    /// The container's id.
    pub container: String,
    /// The last event that the answer will show.
    number: u64,
}

impl Unsettled {
    /// Takes note of an event. Returns what to wait for, if it is about a container.
    ///
    /// A `replayed` event is from before the connection: it ended nothing that a later one, already
    /// on its way, might not have started again.
    pub fn note(&mut self, event: &EventMessage, replayed: bool) -> Option<Barrier> {
        let action = event.action.as_deref()?;
        let actor = event.actor.as_ref()?;
        let id = actor.id.clone()?;
        let ended = match event.typ? {
            EventMessageTypeEnum::CONTAINER => Ended {
                container: id,
                network: None,
            },
            EventMessageTypeEnum::NETWORK => Ended {
                container: actor.attributes.as_ref()?.get("container")?.clone(),
                network: Some(id),
            },
            _ => return None,
        };
        self.last += 1;
        let barrier = Barrier {
            container: ended.container.clone(),
            number: self.last,
        };
        match action {
            "die" | "disconnect" if !replayed => {
                self.ended.insert(ended, self.last);
            }
            "start" | "connect" => {
                self.ended.remove(&ended);
            }
            _ => {}
        }
        Some(barrier)
    }

    /// What to wait for until the daemon can tell about a container that it is busy with.
    pub fn busy(&self, container: &str) -> Barrier {
        Barrier {
            container: container.to_owned(),
            number: self.last,
        }
    }

    /// The daemon has answered: every event about the container up to the barrier's is in the list.
    pub fn settle(&mut self, barrier: &Barrier) {
        self.ended.retain(|ended, number| {
            ended.container != barrier.container || *number > barrier.number
        });
    }

    /// Whether the container has ended, whatever the list says.
    pub fn container_ended(&self, container: &str) -> bool {
        self.holds(container, None)
    }

    /// Whether the container has left the network, whatever the list says.
    pub fn endpoint_ended(&self, container: &str, network: &str) -> bool {
        self.holds(container, Some(network))
    }

    fn holds(&self, container: &str, network: Option<&str>) -> bool {
        !self.ended.is_empty()
            && self.ended.contains_key(&Ended {
                container: container.to_owned(),
                network: network.map(str::to_owned),
            })
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::EventActor;

    use super::*;

    fn container_event(action: &str, container: &str) -> EventMessage {
        EventMessage {
            typ: Some(EventMessageTypeEnum::CONTAINER),
            action: Some(action.to_owned()),
            actor: Some(EventActor {
                id: Some(container.to_owned()),
                attributes: None,
            }),
            ..EventMessage::default()
        }
    }

    fn network_event(action: &str, container: &str, network: &str) -> EventMessage {
        let attributes = HashMap::from([("container".to_owned(), container.to_owned())]);
        EventMessage {
            typ: Some(EventMessageTypeEnum::NETWORK),
            action: Some(action.to_owned()),
            actor: Some(EventActor {
                id: Some(network.to_owned()),
                attributes: Some(attributes),
            }),
            ..EventMessage::default()
        }
    }

    #[test]
    fn a_death_holds_until_the_daemon_has_answered() {
        let mut unsettled = Unsettled::default();
        let barrier = unsettled
            .note(&container_event("die", "a"), false)
            .expect("a barrier");
        assert!(unsettled.container_ended("a"));
        assert!(!unsettled.container_ended("b"));
        unsettled.settle(&barrier);
        assert!(!unsettled.container_ended("a"));
    }

    #[test]
    fn an_older_answer_does_not_settle_a_newer_death() {
        let mut unsettled = Unsettled::default();
        let older = unsettled
            .note(&container_event("start", "a"), false)
            .expect("a barrier");
        let newer = unsettled
            .note(&container_event("die", "a"), false)
            .expect("a barrier");
        unsettled.settle(&older);
        assert!(unsettled.container_ended("a"));
        unsettled.settle(&newer);
        assert!(!unsettled.container_ended("a"));
    }

    #[test]
    fn a_start_revives_at_once() {
        let mut unsettled = Unsettled::default();
        unsettled.note(&container_event("die", "a"), false);
        unsettled.note(&container_event("start", "a"), false);
        assert!(!unsettled.container_ended("a"));
    }

    #[test]
    fn a_network_is_left_and_joined_again_alone() {
        let mut unsettled = Unsettled::default();
        unsettled.note(&network_event("disconnect", "a", "n"), false);
        assert!(unsettled.endpoint_ended("a", "n"));
        assert!(!unsettled.endpoint_ended("a", "m"));
        assert!(!unsettled.container_ended("a"));
        unsettled.note(&network_event("connect", "a", "n"), false);
        assert!(!unsettled.endpoint_ended("a", "n"));
    }

    #[test]
    fn a_replayed_death_ends_nothing_but_is_waited_for() {
        let mut unsettled = Unsettled::default();
        assert!(unsettled.note(&container_event("die", "a"), true).is_some());
        assert!(!unsettled.container_ended("a"));
    }

    #[test]
    fn other_events_need_no_waiting() {
        let mut unsettled = Unsettled::default();
        assert_eq!(unsettled.note(&EventMessage::default(), false), None);
        let mut without_container = network_event("destroy", "a", "n");
        without_container.actor = Some(EventActor {
            id: Some("n".to_owned()),
            attributes: None,
        });
        assert_eq!(unsettled.note(&without_container, false), None);
    }
}
