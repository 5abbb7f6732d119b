//! Where the Docker daemon listens.

use std::{
    env, fmt,
    io::{self, ErrorKind},
    os::unix::{fs::FileTypeExt as _, net::UnixStream},
    path::{Path, PathBuf},
};

use bollard::{API_DEFAULT_VERSION, Docker};
use thiserror::Error;

/// Docker's own default, `DEFAULT_DOCKER_HOST` in docker/cli's `opts/hosts.go`.
const USUAL_SOCKET: &str = "/var/run/docker.sock";

/// Seconds until an answer's headers are there. Docker takes its time to list containers while it
/// starts many of them.
const TIMEOUT_SECONDS: u64 = 30;

/// A Docker daemon's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket.
    Unix(PathBuf),
    /// `HOST:PORT`, without encryption. Only good for a daemon of this very machine.
    Tcp(String),
}

/// What makes an endpoint useless for good; the text is the whole sentence for the user.
#[derive(Debug, Error)]
pub enum EndpointError {
    /// A scheme that leads nowhere from here.
    #[error(
        "cannot reach Docker at {0}: only a socket's path, unix://PATH and tcp://HOST:PORT are \
         understood; portway runs on Docker's own host"
    )]
    Scheme(String),
    /// The socket is there, and closed to us.
    #[error("cannot reach Docker at {0}: permission denied; run as root or join the docker group")]
    Permission(Endpoint),
    /// Something else has the socket's name.
    #[error("cannot reach Docker at {0}: it is not a socket; name Docker's socket with --docker")]
    NotASocket(Endpoint),
}

impl Endpoint {
    /// Reads a path, `unix://PATH` or `tcp://HOST:PORT`.
    ///
    /// # Errors
    /// [`EndpointError::Scheme`] for anything else.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        if let Some(path) = text.strip_prefix("unix://") {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        if let Some(address) = text.strip_prefix("tcp://").or(text.strip_prefix("http://")) {
            return Ok(Self::Tcp(address.trim_end_matches('/').to_owned()));
        }
        if text.is_empty() || text.contains("://") {
            return Err(EndpointError::Scheme(text.to_owned()));
        }
        Ok(Self::Unix(PathBuf::from(text)))
    }

    /// The endpoint to follow: the one named, else DOCKER_HOST's, else the usual socket if it is
    /// there.
    ///
    /// # Errors
    /// [`EndpointError::Scheme`] for a named one or a DOCKER_HOST that makes no sense.
    pub fn find(named: Option<&str>) -> Result<Option<Self>, EndpointError> {
        if let Some(text) = named {
            return Self::parse(text).map(Some);
        }
        // The docker command takes an empty DOCKER_HOST for an unset one.
        if let Some(text) = env::var("DOCKER_HOST").ok().filter(|text| !text.is_empty()) {
            return Self::parse(&text).map(Some);
        }
        let usual = Path::new(USUAL_SOCKET);
        Ok(usual.exists().then(|| Self::Unix(usual.to_owned())))
    }

    /// Looks for what waiting does not mend. A socket that is not there yet, or that nobody listens
    /// on, is no error: Docker may still be starting.
    ///
    /// # Errors
    /// [`EndpointError::Permission`] and [`EndpointError::NotASocket`].
    pub fn check(&self) -> Result<(), EndpointError> {
        let Self::Unix(path) = self else {
            return Ok(());
        };
        let denied = |error: &io::Error| error.kind() == ErrorKind::PermissionDenied;
        match path.metadata() {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(EndpointError::NotASocket(self.clone()));
            }
            Err(error) if denied(&error) => return Err(EndpointError::Permission(self.clone())),
            _ => {}
        }
        match UnixStream::connect(path) {
            Err(error) if denied(&error) => Err(EndpointError::Permission(self.clone())),
            _ => Ok(()),
        }
    }

    /// A client that speaks the newest API version known to both sides.
    pub(super) async fn connect(&self) -> Result<Docker, bollard::errors::Error> {
        let docker = match self {
            Self::Unix(path) => Docker::connect_with_unix(
                &path.to_string_lossy(),
                TIMEOUT_SECONDS,
                API_DEFAULT_VERSION,
            )?,
            Self::Tcp(address) => {
                Docker::connect_with_http(address, TIMEOUT_SECONDS, API_DEFAULT_VERSION)?
            }
        };
        docker.negotiate_version().await
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_urls_are_understood() {
        let table = [
            ("/run/docker.sock", "unix:///run/docker.sock"),
            ("unix:///run/docker.sock", "unix:///run/docker.sock"),
            ("docker.sock", "unix://docker.sock"),
            ("tcp://127.0.0.1:2375", "tcp://127.0.0.1:2375"),
            ("http://127.0.0.1:2375/", "tcp://127.0.0.1:2375"),
        ];
        for (text, shown) in table {
            let endpoint = Endpoint::parse(text).map(|endpoint| endpoint.to_string());
            assert_eq!(endpoint.ok().as_deref(), Some(shown));
        }
        for text in ["ssh://somewhere", "npipe:////./pipe/docker", ""] {
            assert!(
                matches!(Endpoint::parse(text), Err(EndpointError::Scheme(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn a_file_is_not_a_socket_and_a_missing_one_is_waited_for() {
        let file = Endpoint::Unix(PathBuf::from("/proc/version"));
        let error = file.check().expect_err("a file cannot be Docker");
        assert_eq!(
            error.to_string(),
            "cannot reach Docker at unix:///proc/version: it is not a socket; \
             name Docker's socket with --docker"
        );
        Endpoint::Unix(PathBuf::from("/nowhere/docker.sock"))
            .check()
            .expect("it may still come");
    }
}
