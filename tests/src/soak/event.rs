//! What can happen.

use super::{
    history::Party,
    lanes::{self, Holder, Protocol},
    traffic::DENIED,
};

/// What a rule in DOCKER-USER denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// All packets of one client.
    Client,
    /// All datagrams to the ports of a slot's containers.
    Slot(usize),
}

impl Denial {
    /// The rule, without its chain.
    pub fn rule(self) -> String {
        match self {
            Self::Client => format!("-s {DENIED} -j DROP"),
            Self::Slot(slot) => {
                let mut own = lanes::of(Holder::Slot(slot));
                let udp = own.find(|publication| publication.protocol == Protocol::Udp);
                let ports = udp.map(|udp| format!("{}:{}", udp.port, udp.port + udp.count - 1));
                format!("-p udp --dport {} -j DROP", ports.unwrap_or_default())
            }
        }
    }

    /// Whom it is about.
    pub fn party(self) -> Party {
        match self {
            Self::Client => Party::Client(DENIED),
            Self::Slot(slot) => Party::Of(Holder::Slot(slot)),
        }
    }
}

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A container comes.
    Start(usize),
    /// It goes.
    Remove(usize),
    /// Another one takes its place, at once.
    Move(usize),
    /// It is started anew.
    Restart(usize),
    /// It is put into another network as well, or taken out of it.
    Connect(usize),
    /// The ports that are published by hand go to one of the containers that stay, or to none.
    ByHand(Option<usize>),
    /// A rule comes.
    Deny(Denial),
    /// It goes.
    Allow,
    /// `portway load`, once more.
    Load,
    /// `run` is killed.
    Kill,
    /// It is started.
    Run,
    /// dockerd ends, and comes again.
    RestartDocker,
}
