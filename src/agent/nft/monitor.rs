//! Tells when somebody else touches one of our tables.
//!
//! The kernel tells listeners of each change and, behind a transaction's changes, of the generation that it made. Who made
//! it shows by the number of the socket it came through: process numbers mean something else in each container, and
//! another process of ours (`--cleanup`) is somebody else, too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::Errno;

use super::error::ReadError;
use super::read::Generation;
use crate::agent::netlink::wire::{BRIDGE, INET, kind};
use crate::agent::netlink::{Link, Membership};
use crate::ruleset::TABLE;

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;

/// How much may wait to be heard. What is more is told as [`Event::Lost`].
const RECEIVE: usize = 8 * 1024 * 1024;

/// Something that the listener heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody changed something in our table.
    Touched(Author),
    /// Somebody deleted our table, perhaps with all others.
    Deleted(Author),
    /// More happened than could be kept, or something happened while nothing was heard: our table may have been touched.
    Lost,
}

/// Who made a change. Threads are numbered as outside of all containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Author {
    /// The thread that did it; 0 where the kernel did not say.
    pub process: u32,
    /// Its name.
    pub name: String,
}

/// Listens to `nf_tables` of the network namespace that the thread was in when it was opened.
///
/// While one listens the kernel tells it of each element that is changed, which costs more than the change: let sockets that
/// make large changes know its [`Ear`].
#[derive(Debug)]
pub struct Monitor {
    link: Link,
    ear: Ear,
    own: Vec<u32>,
    /// What has been heard of a transaction whose end has not been.
    heard: Option<Heard>,
}

/// What a listener hears with; given to a [`Socket`](super::Socket) so that large changes of our own are not told.
#[derive(Clone, Debug)]
pub struct Ear {
    membership: Membership,
    has_missed: Arc<AtomicBool>,
}

impl Ear {
    /// Hears nothing any more.
    pub(super) fn close(&self) {
        // A listener that cannot be stopped hears everything, which costs time only.
        let _ = self.membership.leave();
    }

    /// Hears again.
    pub(super) fn open(&self) {
        if self.membership.join().is_err() {
            self.miss();
        }
    }

    /// Has the listener told that something may have been missed.
    pub(super) fn miss(&self) {
        self.has_missed.store(true, Ordering::Release);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Heard {
    Touched,
    Deleted,
}

impl Monitor {
    /// Begins to listen. Changes through the sockets of these numbers ([`Socket::port`]) are our own.
    pub fn open(own: Vec<u32>) -> Result<Self, ReadError> {
        let link = Link::open(RECEIVE).map_err(ReadError::Socket)?;
        let membership = link.join(GROUP).map_err(|errno| match errno {
            Errno::PERM => ReadError::NotPermitted,
            errno => ReadError::Socket(errno),
        })?;
        let ear = Ear {
            membership,
            has_missed: Arc::default(),
        };
        Ok(Self {
            link,
            ear,
            own,
            heard: None,
        })
    }

    /// What it hears with.
    pub fn ear(&self) -> Ear {
        self.ear.clone()
    }

    /// Waits for what others do to our table, for so long at most; empty where they did nothing.
    pub fn wait(&mut self, at_most: Duration) -> Result<Vec<Event>, ReadError> {
        self.link.set_patience(at_most).map_err(ReadError::Socket)?;
        if self.ear.has_missed.swap(false, Ordering::AcqRel) {
            // Perhaps it could not be joined again; twice is once.
            self.ear.membership.join().map_err(ReadError::Socket)?;
            return Ok(vec![Event::Lost]);
        }
        let messages = match self.link.receive() {
            Ok(messages) => messages,
            Err(Errno::AGAIN) => return Ok(Vec::new()),
            Err(Errno::NOBUFS) => {
                self.heard = None;
                return Ok(vec![Event::Lost]);
            }
            Err(errno) => return Err(ReadError::Socket(errno)),
        };
        let mut events = Vec::new();
        for message in messages {
            if self.own.contains(&message.port) {
                continue;
            }
            if message.kind == kind::NEWGEN {
                let author = Generation::read(message.attributes())
                    .map(|made| Author {
                        process: made.process,
                        name: made.name,
                    })
                    .unwrap_or_default();
                match self.heard.take() {
                    Some(Heard::Touched) => events.push(Event::Touched(author)),
                    Some(Heard::Deleted) => events.push(Event::Deleted(author)),
                    None => {}
                }
            } else if matches!(message.family(), INET | BRIDGE)
                && message.attributes().text(1) == Some(TABLE)
            {
                let heard = match message.kind {
                    kind::DELTABLE => Heard::Deleted,
                    _ => Heard::Touched,
                };
                self.heard = self.heard.max(Some(heard));
            }
        }
        Ok(events)
    }
}
