//! Those who take notice: of what comes to containers, and of what the kernel drops.

use std::{
    fs,
    io::{self, ErrorKind, Read as _},
    os::unix::net::{UnixListener, UnixStream},
    sync::Arc,
    thread::{self, Scope},
    time::Duration,
};

use anyhow::{Context, Result};
use bytemuck::pod_read_unaligned;
use nix::errno::Errno;
use portway_tests_ebpf::Stamp;

use super::{
    drops::Drops,
    server::{FOLDER, NOTICES, Notice},
    shared::Shared,
};
use crate::lab::Lab;

/// How often is looked whether there is something.
const TICK: Duration = Duration::from_millis(5);

/// Starts them; they go on until nobody wants to know.
///
/// # Errors
/// The kernel's.
pub fn listen<'scope>(
    scope: &'scope Scope<'scope, '_>,
    shared: &'scope Shared,
    lab: &Lab,
    mut drops: Drops,
) -> Result<()> {
    fs::create_dir_all(lab.host.file(FOLDER))?;
    let listener = UnixListener::bind(lab.host.file(NOTICES)).context("cannot take notice")?;
    listener.set_nonblocking(true)?;
    scope.spawn(move || {
        while shared.is_listening() {
            let accepted = listener.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(false)?;
                let stream = Arc::new(stream);
                shared.add_notices(&stream);
                Ok(stream)
            });
            match accepted {
                Ok(stream) => {
                    scope.spawn(move || take_notice(&stream, shared));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(TICK),
                Err(error) => {
                    let failure = format!("cannot take notice of a container: {error}");
                    shared.ledger().fail(failure);
                    return;
                }
            }
        }
    });
    scope.spawn(move || {
        let mut is_last = false;
        while !is_last {
            is_last = !shared.is_listening();
            drops.read(|stamp, reason| shared.ledger().lost(stamp, &reason));
            thread::sleep(TICK);
        }
        let untold = drops.untold();
        let mut ledger = shared.ledger();
        match untold {
            Ok(untold) => ledger.untold = untold,
            Err(error) => ledger.fail(format!("{error:#}")),
        }
    });
    Ok(())
}

/// Reads what a container has to tell, until it is gone.
fn take_notice(mut stream: &UnixStream, shared: &Shared) -> io::Result<()> {
    let mut bytes = [0; size_of::<Notice>()];
    loop {
        stream.read_exact(&mut bytes)?;
        let notice: Notice = pod_read_unaligned(&bytes);
        let mut ledger = shared.ledger();
        match notice.kind {
            Notice::CAME => ledger.came(notice.stamp, notice.server, notice.port),
            Notice::ANSWERED => ledger.answered(notice.stamp),
            _ => {
                ledger.answered(notice.stamp);
                let answer = Stamp {
                    server: notice.server,
                    ..notice.stamp
                };
                let error = Errno::from_raw(notice.errno);
                ledger.lost(answer, &format!("sendto: {error:?}"));
            }
        }
    }
}
