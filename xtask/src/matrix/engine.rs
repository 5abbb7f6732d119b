//! The daemons that portway is tested with.

use clap::ValueEnum;

use super::system::Suite;
use crate::named;

/// A daemon as a Debian has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Engine {
    /// Debian 12's.
    #[value(name = "docker-20.10")]
    Docker20,
    /// Debian 13's.
    #[value(name = "docker-26.1")]
    Docker26,
    /// What Debian has packaged last; 28.5 in 2026.
    #[value(name = "docker-newest")]
    DockerNewest,
    /// Debian 13's, whose rules are nftables'.
    #[value(name = "podman-5.4")]
    Podman5,
}

/// A daemon in one of its configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Which daemon.
    pub engine: Engine,
    /// Whether it has a docker-proxy for each port; podman has no such thing.
    proxy: Option<bool>,
}

impl Engine {
    /// Where it is to be had.
    pub fn suite(self) -> Suite {
        match self {
            Self::Docker20 => Suite::Bookworm,
            Self::Docker26 | Self::Podman5 => Suite::Trixie,
            Self::DockerNewest => Suite::Sid,
        }
    }

    /// The package that it is in.
    pub fn package(self) -> &'static str {
        match self {
            Self::Docker20 | Self::Docker26 | Self::DockerNewest => "docker.io",
            Self::Podman5 => "podman",
        }
    }

    /// Its configurations.
    pub fn columns(self) -> impl Iterator<Item = Column> {
        let proxies: &[Option<bool>] = match self {
            Self::Podman5 => &[None],
            _ => &[Some(true), Some(false)],
        };
        proxies.iter().map(move |proxy| Column {
            engine: self,
            proxy: *proxy,
        })
    }

    /// What the tests know it by.
    fn kind(self) -> &'static str {
        match self {
            Self::Podman5 => "podman",
            _ => "docker",
        }
    }
}

impl Column {
    /// A name for messages and files.
    pub fn name(self) -> String {
        let without = if self.proxy == Some(false) {
            "-without-proxy"
        } else {
            ""
        };
        format!("{}{without}", named::name(self.engine))
    }

    /// The same in words, with its version.
    pub fn title(self, version: &str) -> String {
        match self.proxy {
            None => format!("podman {version}"),
            Some(true) => format!("Docker {version}"),
            Some(false) => format!("Docker {version}, no userland-proxy"),
        }
    }

    /// What tells the tests (tests/src/engine.rs).
    pub fn environment(self) -> Vec<(&'static str, String)> {
        let mut environment = vec![("PORTWAY_ENGINE", self.engine.kind().to_owned())];
        if let Some(proxy) = self.proxy {
            environment.push(("PORTWAY_USERLAND_PROXY", proxy.to_string()));
        }
        environment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_have_names_of_their_own() {
        let names: Vec<_> = Engine::Docker26.columns().map(Column::name).collect();
        assert_eq!(names, ["docker-26.1", "docker-26.1-without-proxy"]);
        let names: Vec<_> = Engine::Podman5.columns().map(Column::name).collect();
        assert_eq!(names, ["podman-5.4"]);
    }
}
