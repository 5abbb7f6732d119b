//! The task that follows a Docker daemon.

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    pin::pin,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bollard::{
    Docker,
    errors::Error,
    models::{EventMessage, EventMessageTypeEnum},
    query_parameters::{EventsOptions, EventsOptionsBuilder},
};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{sync::watch, time::timeout};
use tracing::{debug, info, warn};

use super::{
    endpoint::Endpoint,
    publications::publications,
    reader::{Known, Read, read},
    unsettled::{Barrier, Unsettled},
};
use crate::publication::Publication;

/// The first wait before another attempt; doubled up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// A local socket costs next to nothing to try, and a daemon's first containers should not wait.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// A daemon that takes longer to answer has hung; bollard itself only limits the wait for headers.
const READ_LIMIT: Duration = Duration::from_secs(60);

/// How far back events are asked for. Docker sends its headers before it subscribes the client
/// (`getEvents` in `daemon/server/router/system/system_routes.go`), so without this one could fall
/// between subscription and snapshot.
const REPLAYED: Duration = Duration::from_secs(1);

/// How long a read waits for the daemon's word about one container, if an event is to be followed
/// and if not.
const PATIENCE: Duration = Duration::from_millis(30);
const PATIENCE_AT_FIRST: Duration = Duration::from_secs(2);

/// The actions that can change what is published. Not among them: `exec_*` and `health_status`,
/// which come every few seconds, and `kill`, after which the container still runs.
const ACTIONS: [&str; 10] = [
    "start",
    "die",
    "stop",
    "restart",
    "pause",
    "unpause",
    "rename",
    "destroy",
    "connect",
    "disconnect",
];

/// All that Docker has published at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// In a fixed order, ranges joined.
    pub publications: Vec<Publication>,
    /// When the read that it comes from began.
    pub observed: Instant,
    /// Docker's time of the oldest event that it is the first to show; none for a first snapshot.
    pub event_time: Option<SystemTime>,
}

/// Follows one Docker daemon.
#[derive(Debug)]
pub struct Provider {
    endpoint: Endpoint,
    /// The last reason for having no connection; none while there is one.
    down: Option<String>,
    reached: bool,
}

/// Why a connection's work ended.
enum End {
    /// Nobody listens to the snapshots any more.
    Unwanted,
    /// The daemon has gone, hangs or talks nonsense.
    Lost(String),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        // The innermost error is the one that says something, like "Connection refused"; those around
        // it are hyper's and bollard's layers.
        let mut innermost: &dyn std::error::Error = &error;
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        Self::Lost(innermost.to_string())
    }
}

impl Provider {
    /// A provider for the daemon at `endpoint`, which need not be there yet.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            down: None,
            reached: false,
        }
    }

    /// Follows the daemon until nobody listens to `snapshots` any more. Sends a snapshot on every
    /// connection and after every event that may matter; while the daemon cannot be reached, the
    /// last one stays in force, as the containers may well run on (live-restore).
    pub async fn run(mut self, snapshots: watch::Sender<Option<Snapshot>>) {
        let mut wait = FIRST_WAIT;
        loop {
            let mut connected = false;
            let end = tokio::select! {
                end = self.follow(&snapshots, &mut connected) => end,
                () = snapshots.closed() => End::Unwanted,
            };
            let End::Lost(reason) = end else { return };
            if connected {
                wait = FIRST_WAIT;
            }
            self.say_down(reason);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = snapshots.closed() => return,
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// One connection's work; `connected` is set with its first snapshot.
    async fn follow(
        &mut self,
        snapshots: &watch::Sender<Option<Snapshot>>,
        connected: &mut bool,
    ) -> End {
        let began = SystemTime::now();
        let docker = match self.endpoint.connect().await {
            Ok(docker) => docker,
            Err(error) => return error.into(),
        };
        let mut events = pin!(docker.events(Some(events_since(began))));
        let mut unsettled = Unsettled::default();
        let mut barriers = FuturesUnordered::new();
        let mut known = match Known::of(&docker).await {
            Ok(known) => known,
            Err(error) => return error.into(),
        };
        let mut changed = HashSet::new();
        // What the next read is for: the oldest event not yet shown, or just a look.
        let mut unread = Some(None);
        let mut reading = None;
        loop {
            if reading.is_none()
                && let Some(event_time) = unread.take()
            {
                changed.clear();
                let patience = if *connected {
                    PATIENCE
                } else {
                    PATIENCE_AT_FIRST
                };
                let read = read(docker.clone(), known.clone(), unsettled.clone(), patience);
                reading = Some((
                    event_time,
                    Instant::now(),
                    Box::pin(timeout(READ_LIMIT, read)),
                ));
            }
            tokio::select! {
                // Events first: what they end must not be in the snapshot any more.
                biased;
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        let time = event_time(&event);
                        debug!(action = ?event.action, ?time, "Docker event");
                        let replayed = time.is_some_and(|time| time < began);
                        if let Some(barrier) = unsettled.note(&event, replayed) {
                            barriers.push(answered(docker.clone(), barrier));
                        }
                        if let Some(container) = other_process(&event) {
                            known.forget(container);
                            changed.insert(container.to_owned());
                        }
                        unread = Some(oldest(unread.flatten(), time));
                    }
                    // Not understood, but something has happened.
                    Some(Err(Error::JsonDataError { .. } | Error::JsonSerdeError { .. })) => {
                        unread.get_or_insert(None);
                    }
                    Some(Err(error)) => return error.into(),
                    None => return End::Lost("it closed the connection".to_owned()),
                },
                Some(barrier) = barriers.next(), if !barriers.is_empty() => {
                    unsettled.settle(&barrier);
                    unread.get_or_insert(None);
                }
                (event_time, observed, outcome) = finished(&mut reading) => {
                    let read: Read = match outcome {
                        Ok(Ok(read)) => read,
                        Ok(Err(error)) => return error.into(),
                        Err(_) => return End::Lost("it takes too long to answer".to_owned()),
                    };
                    known.learn(&read, &changed);
                    for container in &read.facts.undecided {
                        barriers.push(answered(docker.clone(), unsettled.busy(container)));
                    }
                    let publications = publications(&read.facts, &unsettled);
                    if !*connected {
                        *connected = true;
                        self.say_up(publications.len());
                    }
                    let snapshot = Snapshot { publications, observed, event_time };
                    if snapshots.send(Some(snapshot)).is_err() {
                        return End::Unwanted;
                    }
                }
            }
        }
    }

    fn say_up(&mut self, rows: usize) {
        if self.down.take().is_some() {
            // As loud as the word that it was away.
            warn!(endpoint = %self.endpoint, rows, "reached Docker");
        } else {
            info!(endpoint = %self.endpoint, rows, "following Docker");
        }
        self.reached = true;
    }

    /// Says once that a connection is lost, and once for each reason that there never was one.
    fn say_down(&mut self, reason: String) {
        let said = match &self.down {
            Some(last) => self.reached || *last == reason,
            None => false,
        };
        if said {
            debug!(endpoint = %self.endpoint, reason, "Docker is still away");
        } else if self.reached {
            warn!(
                endpoint = %self.endpoint, reason,
                "lost Docker; its published ports stay as they are until it is back"
            );
        } else {
            warn!(endpoint = %self.endpoint, reason, "waiting for Docker");
        }
        self.down = Some(reason);
    }
}

fn events_since(began: SystemTime) -> EventsOptions {
    let since = began.checked_sub(REPLAYED).unwrap_or(UNIX_EPOCH);
    let since = since.duration_since(UNIX_EPOCH).unwrap_or_default();
    let filters = HashMap::from([
        ("type", vec!["container", "network"]),
        ("event", ACTIONS.to_vec()),
    ]);
    EventsOptionsBuilder::default()
        .since(&format!("{}.{:09}", since.as_secs(), since.subsec_nanos()))
        .filters(&filters)
        .build()
}

fn event_time(event: &EventMessage) -> Option<SystemTime> {
    let nanoseconds = u64::try_from(event.time_nano?).ok()?;
    Some(UNIX_EPOCH + Duration::from_nanos(nanoseconds))
}

/// The id of the container whose main process the event has ended or started.
fn other_process(event: &EventMessage) -> Option<&str> {
    let about_container = event.typ == Some(EventMessageTypeEnum::CONTAINER);
    let about_process = matches!(event.action.as_deref(), Some("die" | "start"));
    let id = event.actor.as_ref()?.id.as_deref();
    id.filter(|_| about_container && about_process)
}

fn oldest(a: Option<SystemTime>, b: Option<SystemTime>) -> Option<SystemTime> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Waits until the daemon has let go of the container's lock, which it holds from before an event
/// until its list of containers shows it. Whether the container is still there does not matter.
async fn answered(docker: Docker, barrier: Barrier) -> Barrier {
    let _ = timeout(
        READ_LIMIT,
        docker.inspect_container(&barrier.container, None),
    )
    .await;
    barrier
}

/// What a read under way has to say, and what it was for. Never ready while there is none.
async fn finished<F: Future + Unpin>(
    reading: &mut Option<(Option<SystemTime>, Instant, F)>,
) -> (Option<SystemTime>, Instant, F::Output) {
    let Some((event_time, observed, read)) = reading else {
        return std::future::pending().await;
    };
    let done = (*event_time, *observed, read.await);
    *reading = None;
    done
}
