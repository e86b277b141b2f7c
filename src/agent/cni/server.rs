//! The agent's side of the socket: each question goes to a channel with a place for its answer. Bounded in the number of
//! callers, in the length of what they say and in time.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::ask::{Answer, LONGEST, Request, VERSION};

/// A question, and where its answer goes. Dropping it closes the connection, and the plugin asks again.
#[derive(Debug)]
pub struct Asked {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Answer>,
}

/// How often it is looked whether somebody listens still.
const LOOK: Duration = Duration::from_millis(50);

/// How many plugins may ask at once.
const CALLERS: usize = 256;

/// How long a caller may take to say what it asks.
const SAYING: Duration = Duration::from_secs(5);

/// How long an answer may take; a plugin waits no longer.
const ANSWERING: Duration = Duration::from_mins(1);

/// Listens at a path, for root only. A socket that is there already is replaced in one step: one of an agent that is gone
/// answers nobody, and one of an agent that is going gets no new callers.
///
/// Must be called within a tokio runtime.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(folder)?;
    }
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    let _ = fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
    fs::rename(&fresh, path)?;
    Ok(listener)
}

/// Whether somebody listens at a socket still after so long.
pub fn answers(path: &Path, patience: Duration) -> bool {
    let begun = Instant::now();
    while std::os::unix::net::UnixStream::connect(path).is_ok() {
        if begun.elapsed() > patience {
            return true;
        }
        std::thread::sleep(LOOK);
    }
    false
}

/// Answers callers until nobody takes their questions any more.
pub async fn serve(listener: UnixListener, asked: mpsc::Sender<Asked>) {
    let places = Arc::new(Semaphore::new(CALLERS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = tokio::select! {
            () = asked.closed() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a call of the CNI plugin could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let asked = asked.clone();
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = converse(stream, &asked).await {
                tracing::debug!(%error, "a call of the CNI plugin broke off");
            }
        });
    }
}

async fn converse(stream: UnixStream, asked: &mpsc::Sender<Asked>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    let mut bounded = (&mut stream).take(LONGEST);
    timeout(SAYING, bounded.read_line(&mut line)).await??;
    let answer = match understood(&line) {
        Ok(request) => {
            let (reply, answer) = oneshot::channel();
            let ask = async {
                asked.send(Asked { request, reply }).await.ok()?;
                answer.await.ok()
            };
            match timeout(ANSWERING, ask).await? {
                Some(answer) => answer,
                // The agent is going; the next one will answer.
                None => return Ok(()),
            }
        }
        Err(message) => Answer::Refused { message },
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    timeout(SAYING, stream.get_mut().write_all(&text)).await?
}

fn understood(line: &str) -> Result<Request, String> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u32,
    }
    let wrong = |error: serde_json::Error| format!("the question cannot be understood: {error}");
    let said: Versioned = serde_json::from_str(line).map_err(wrong)?;
    if said.version != VERSION {
        return Err(format!(
            "the plugin speaks version {} and the agent version {VERSION}: the agent puts its own plugin in place when it \
             starts",
            said.version
        ));
    }
    serde_json::from_str(line).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader as Lines, Write as _};
    use std::os::unix::net::UnixStream as Caller;

    use super::*;
    use crate::agent::cni::ask::Command;

    fn say(path: &Path, line: &str) -> String {
        let mut caller = Caller::connect(path).unwrap();
        // Who says too much may find the connection closed.
        let _ = caller.write_all(line.as_bytes());
        let mut heard = String::new();
        let _ = Lines::new(caller).read_line(&mut heard);
        heard
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn questions_reach_the_channel_and_answers_the_caller() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/cni.sock");
        let listener = bind(&path).unwrap();
        // A second one takes the place of the first, whether that is gone or not.
        drop(listener);
        let listener = bind(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        let (sender, mut asked) = mpsc::channel(1);
        let serving = tokio::spawn(serve(listener, sender));
        let answering = tokio::spawn(async move {
            let first: Asked = asked.recv().await.unwrap();
            assert_eq!(first.request.command, Command::Del);
            first.reply.send(Answer::Ready).unwrap();
            drop(asked.recv().await.unwrap());
            asked
        });
        let heard = tokio::task::spawn_blocking(move || {
            let del = r#"{"version":1,"command":"del","containerId":"c","interface":"eth0"}"#
                .to_owned()
                + "\n";
            [
                say(&path, &del),
                // Nobody answers this one.
                say(&path, &del),
                say(&path, "{\"version\":2}\n"),
                say(&path, "nonsense\n"),
                say(&path, &format!("{}\n", "x".repeat(70_000))),
            ]
        });
        let heard = heard.await.unwrap();
        drop(answering.await.unwrap());
        assert_eq!(heard[0], "{\"verdict\":\"ready\"}\n");
        assert_eq!(heard[1], "");
        assert!(
            heard[2].contains("the plugin speaks version 2"),
            "{}",
            heard[2]
        );
        assert!(heard[3].contains("refused"), "{}", heard[3]);
        // Once nobody takes questions, the serving ends.
        timeout(Duration::from_secs(5), serving)
            .await
            .unwrap()
            .unwrap();
    }
}
