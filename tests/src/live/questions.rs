//! Questions of UDP at a steady rate, each from a port of its own, that are not answered at once: at any moment some flows
//! have only begun.

use std::{
    collections::VecDeque,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{Route, Tally};
use crate::lab::{CLIENTS, HOST};

/// How often a question is asked, and how long its answer takes.
const PERIOD: Duration = Duration::from_millis(20);
const LATENESS: Duration = Duration::from_millis(500);

/// What is asked.
const QUESTION: &[u8] = b"question";

/// Those who ask.
pub struct Askers {
    route: Route,
    /// Who has no answer yet.
    waiting: Vec<UdpSocket>,
    asked: usize,
    next: Instant,
}

impl Askers {
    /// Nobody yet.
    pub fn new(route: Route) -> Self {
        Self {
            route,
            waiting: Vec::new(),
            asked: 0,
            next: Instant::now(),
        }
    }

    /// Hears the answers that have come, and asks if it is time.
    ///
    /// # Errors
    /// There are no more sockets.
    pub fn look(&mut self, now: Instant, is_speaking: bool, tally: &mut Tally) -> Result<()> {
        let waiting = self.waiting.len();
        self.waiting
            .retain(|socket| socket.recv(&mut [0; QUESTION.len()]).is_err());
        tally.answered += (waiting - self.waiting.len()) as u64;
        if is_speaking && self.next <= now {
            self.next = (self.next + PERIOD).max(now);
            let source = (CLIENTS[self.asked % CLIENTS.len()], 0);
            let socket = self.route.client.run(|| {
                let socket = UdpSocket::bind(source)?;
                socket.connect((HOST, self.route.host_ports[1]))?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            })?;
            tally.asked += 1;
            self.asked += 1;
            // One that cannot be sent is lost.
            let _ = socket.send(QUESTION);
            self.waiting.push(socket);
        }
        Ok(())
    }
}

/// Answers that are still to be given, in their order.
#[derive(Default)]
pub struct Owed(VecDeque<(Instant, SocketAddr)>);

impl Owed {
    /// Takes note of a question; false if it is none.
    pub fn note(&mut self, now: Instant, datagram: &[u8], client: SocketAddr) -> bool {
        let is_question = datagram == QUESTION;
        if is_question {
            self.0.push_back((now + LATENESS, client));
        }
        is_question
    }

    /// Answers those whose time has come.
    pub fn settle(&mut self, now: Instant, server: &UdpSocket) {
        while let Some((due, client)) = self.0.front().copied()
            && due <= now
        {
            self.0.pop_front();
            // Nobody hears of an answer that cannot be sent, which is then lost.
            let _ = server.send_to(QUESTION, client);
        }
    }
}
