//! The Docker provider: what the containers of a Docker daemon have published, followed live.
//!
//! - [`endpoint`]: where the daemon listens, and what can be wrong with that
//! - [`provider`]: the task that follows the daemon and sends a full [`Snapshot`] after every event
//! - `reader`: one full read of the daemon
//! - `podman`: what podman's API says elsewhere than Docker's
//! - [`unsettled`]: events that the daemon's own list does not show yet
//! - [`publications`]: the pure part, from the API's answers to publications
//! - `ranges`: single ports joined to ranges
//! - [`gateway`]: which of a container's networks Docker publishes its ports on
//!
//! Ports come from the API and never from the text of Docker's firewall rules: the rules' layout
//! changed in 28.0, 28.0.1, 28.2 and 29.0.

pub mod endpoint;
pub mod gateway;
mod podman;
pub mod provider;
pub mod publications;
mod ranges;
mod reader;
pub mod unsettled;

pub use endpoint::{Endpoint, EndpointError};
pub use provider::{Provider, Snapshot};
