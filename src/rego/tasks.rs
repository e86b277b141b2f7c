//! Users' policies under way: beside each other in the threads of the pool, waited for until their time is over.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use regorus::Value;

use super::breaker::Stuck;
use super::context::{self, Context};
use super::pool::POOL;
use super::user::{NoAnswer, UserPolicy};
use crate::guard::engine::Question;

/// How long one policy may take.
const LIMIT: Duration = Duration::from_millis(100);
/// How long a policy that is over its time may take to notice.
const GRACE: Duration = Duration::from_millis(50);

/// One user's policy to be asked.
pub(super) struct Task {
    pub(super) policy: Arc<UserPolicy>,
    pub(super) input: Value,
    pub(super) object: Arc<serde_json::Value>,
}

/// How a policy is asked. Its values stay in the thread that evaluates, which has the stack to let go of deep ones.
pub(super) type Ask<T> =
    fn(&UserPolicy, Value, &serde_json::Value, Duration) -> Result<T, NoAnswer>;

/// How far the thread that does several tasks one after the other has come.
#[derive(Default)]
struct Progress {
    /// Nobody waits any more: what has not begun need not begin.
    cancelled: AtomicBool,
    /// Tasks begun.
    begun: AtomicUsize,
    /// Lets go of the breaker when both ends of this are gone: when the task that did not end in time has ended.
    stuck: std::sync::Mutex<Option<Stuck>>,
}

/// What is left of the time, at most the limit of one policy; none when it is over.
pub(super) fn left(deadline: Option<Instant>) -> Option<Duration> {
    let left = deadline.map_or(LIMIT, |deadline| {
        deadline
            .saturating_duration_since(Instant::now())
            .min(LIMIT)
    });
    (!left.is_zero()).then_some(left)
}

/// Asks users' policies beside each other, and waits for them until their time is over and no longer. Each has an
/// answer, or the reason why there is none.
pub(super) fn run<T: Send + 'static>(
    tasks: Vec<Task>,
    ask: Ask<T>,
    question: &Question<'_>,
) -> Vec<(Arc<UserPolicy>, Result<T, String>)> {
    if !POOL.works() {
        let reason = "policies that do not come to an end occupy all threads; restart, and mend or remove them";
        return tasks
            .into_iter()
            .map(|task| (task.policy, Err(reason.to_owned())))
            .collect();
    }
    let policies: Vec<Arc<UserPolicy>> = tasks.iter().map(|task| task.policy.clone()).collect();
    let size = tasks.len().div_ceil(POOL.threads()).max(1);
    let longest = LIMIT.saturating_mul(u32::try_from(size).unwrap_or(u32::MAX));
    // Beyond what the policies may take, the threads may be busy with others'.
    let end = Instant::now() + longest + LIMIT;
    let end = question.deadline.map_or(end, |deadline| deadline.min(end));
    let mut under_way = Vec::new();
    let mut tasks = tasks.into_iter();
    for chunk in policies.chunks(size) {
        let work: Vec<Task> = tasks.by_ref().take(size).collect();
        let context = Context {
            snapshot: question.snapshot.clone(),
            now: question.now,
        };
        let (sender, receiver) = mpsc::channel();
        let progress = Arc::new(Progress::default());
        let seen = progress.clone();
        let waiting = POOL.give(Box::new(move || {
            let _entered = context::enter(context);
            for task in work {
                if seen.cancelled.load(Ordering::Acquire) {
                    return;
                }
                seen.begun.fetch_add(1, Ordering::Release);
                // Whoever waited may have gone; then there is nobody to tell.
                let _ = sender.send(evaluate(task, ask, end));
            }
        }));
        under_way.push((chunk, waiting, receiver, progress));
    }
    let mut done = Vec::new();
    for (chunk, waiting, receiver, progress) in under_way {
        for (index, policy) in chunk.iter().enumerate() {
            let wait = (end + GRACE).saturating_duration_since(Instant::now());
            let answer = receiver.recv_timeout(wait).unwrap_or_else(|_| {
                progress.cancelled.store(true, Ordering::Release);
                if index >= progress.begun.load(Ordering::Acquire) {
                    // Those before it did not stop, so it has not begun and never will.
                    return Err("there was no time left for it".to_owned());
                }
                if let Ok(mut place) = progress.stuck.lock() {
                    *place = Some(policy.breaker.stuck());
                }
                POOL.give_up(&waiting);
                Err("it did not stop when its time was over".to_owned())
            });
            done.push((policy.clone(), answer));
        }
    }
    done
}

/// Asks one policy in the thread that it is given, and lets its breaker know.
fn evaluate<T>(task: Task, ask: Ask<T>, end: Instant) -> Result<T, String> {
    let Task {
        policy,
        input,
        object,
    } = task;
    let Some(limit) = left(Some(end)) else {
        return Err("there was no time left for it".to_owned());
    };
    let answer = ask(&policy, input, &object, limit);
    match &answer {
        // Only a policy that had its whole time is to blame.
        Err(NoAnswer::TimedOut(limit)) if *limit < LIMIT => {}
        Err(NoAnswer::TimedOut(_)) => policy.breaker.timed_out(),
        Err(NoAnswer::Failed(_)) | Ok(_) => policy.breaker.ended(),
    }
    answer.map_err(|error| error.to_string())
}
