//! The tasks of a simulation, and the choice of the next one.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    task::{Context, Waker},
};

use crate::{
    panics,
    random::Random,
    world::{ProcessId, Shared, TaskId, TaskWaker},
};

pub(crate) type LocalBoxed = Pin<Box<dyn Future<Output = ()>>>;

/// A task.
struct Slot {
    process: ProcessId,
    /// `None` while it runs, and after its end.
    future: Option<LocalBoxed>,
    /// `None` after its end.
    waker: Option<(Arc<TaskWaker>, Waker)>,
}

/// The tasks of a simulation. All run in one thread; which of the woken ones is next is drawn from
/// the seed.
pub(crate) struct Executor {
    tasks: RefCell<Vec<Slot>>,
    /// The woken tasks, in the order of their wake-ups.
    ready: RefCell<Vec<TaskId>>,
    random: RefCell<Random>,
    steps: Cell<u64>,
    /// The number of tasks that have ended by themselves.
    ended: Cell<u64>,
}

/// The outcome of a turn.
pub(crate) enum Turn {
    Ran,
    /// No task has work.
    Idle,
    /// A task has panicked.
    Panicked(ProcessId, Box<dyn Any + Send>),
}

/// The outcome of polls without wake-ups.
pub(crate) enum Unwoken {
    /// All tasks still wait.
    Rest,
    /// A task of this process has made progress.
    Progress(ProcessId),
    /// A task has panicked.
    Panicked(ProcessId, Box<dyn Any + Send>),
}

impl Executor {
    pub(crate) fn new(random: Random) -> Self {
        Self {
            tasks: RefCell::default(),
            ready: RefCell::default(),
            random: RefCell::new(random),
            steps: Cell::new(0),
            ended: Cell::new(0),
        }
    }

    /// The number of polls so far.
    pub(crate) const fn steps(&self) -> u64 {
        self.steps.get()
    }

    pub(crate) fn spawn(&self, shared: &Shared, process: ProcessId, future: LocalBoxed) {
        let mut tasks = self.tasks.borrow_mut();
        let waker = TaskWaker::new(tasks.len(), shared);
        let both = (Arc::clone(&waker), Waker::from(waker));
        both.1.wake_by_ref();
        tasks.push(Slot {
            process,
            future: Some(future),
            waker: Some(both),
        });
    }

    /// Takes the tasks that were spawned on the runtime, and the wake-ups.
    fn take_new(&self, shared: &Shared) {
        let spawned = shared.with(|world, _| std::mem::take(&mut world.spawned));
        for (process, task) in spawned {
            self.spawn(shared, process, task);
        }
        let mut woken = shared.woken.lock().unwrap_or_else(PoisonError::into_inner);
        self.ready.borrow_mut().append(&mut woken);
    }

    /// Draws a task from those that are ready and not suspended.
    fn draw(&self, shared: &Shared) -> Option<TaskId> {
        let mut ready = self.ready.borrow_mut();
        let random = &mut self.random.borrow_mut();
        if shared.suspended.load(Relaxed) == 0 {
            let drawn = random.index(ready.len());
            return (drawn < ready.len()).then(|| ready.swap_remove(drawn));
        }
        let tasks = self.tasks.borrow();
        let runnable: Vec<usize> = shared.with(|world, _| {
            let runs = |&task: &TaskId| !world.processes[tasks[task].process.0].suspended;
            let indices = ready.iter().enumerate().filter(|(_, task)| runs(task));
            indices.map(|(index, _)| index).collect()
        });
        let drawn = *random.pick(&runnable)?;
        Some(ready.swap_remove(drawn))
    }

    /// Runs one task.
    pub(crate) fn turn(&self, shared: &Shared) -> Turn {
        self.take_new(shared);
        let Some(task) = self.draw(shared) else {
            return Turn::Idle;
        };
        self.steps.set(self.steps.get() + 1);
        self.poll(shared, task)
    }

    /// Polls a task, unless it has ended.
    fn poll(&self, shared: &Shared, task: TaskId) -> Turn {
        let taken = {
            let slot = &mut self.tasks.borrow_mut()[task];
            let waker = slot.waker.clone();
            slot.future.take().zip(waker).map(|it| (slot.process, it))
        };
        let Some((process, (mut future, (flag, waker)))) = taken else {
            return Turn::Ran;
        };
        flag.reset();
        panics::forget();
        let current = shared.replace_current(process);
        let polled = catch_unwind(AssertUnwindSafe(|| {
            if future
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
            {
                Some(future)
            } else {
                drop(future);
                None
            }
        }));
        shared.replace_current(current);
        match polled {
            Ok(Some(future)) => {
                let slot = &mut self.tasks.borrow_mut()[task];
                if slot.waker.is_some() {
                    slot.future = Some(future);
                    return Turn::Ran;
                }
                // It has killed its own process.
                Turn::Ran
            }
            Ok(None) => {
                self.tasks.borrow_mut()[task].waker = None;
                self.ended.set(self.ended.get() + 1);
                Turn::Ran
            }
            Err(panic) => Turn::Panicked(process, panic),
        }
    }

    /// Polls each task that was not woken, when none has work. None may make progress by it, which
    /// is to end or to move bytes.
    pub(crate) fn poll_unwoken(&self, shared: &Shared) -> Unwoken {
        let progress = || {
            (
                self.ended.get(),
                shared.with(|world, _| world.network.moved),
            )
        };
        let before = progress();
        for (task, process) in self.unwoken(shared) {
            if let Turn::Panicked(process, panic) = self.poll(shared, task) {
                return Unwoken::Panicked(process, panic);
            }
            if progress() != before {
                return Unwoken::Progress(process);
            }
        }
        Unwoken::Rest
    }

    /// The tasks that were not woken, of processes that are not suspended.
    fn unwoken(&self, shared: &Shared) -> Vec<(TaskId, ProcessId)> {
        let (tasks, ready) = (self.tasks.borrow(), self.ready.borrow());
        shared.with(|world, _| {
            let waiting = tasks.iter().enumerate().filter(|(task, slot)| {
                let suspended = world.processes[slot.process.0].suspended;
                slot.waker.is_some() && !suspended && !ready.contains(task)
            });
            waiting.map(|(task, slot)| (task, slot.process)).collect()
        })
    }

    /// Drops all tasks of a process, where they are.
    pub(crate) fn kill(&self, shared: &Shared, process: ProcessId) {
        self.take_new(shared);
        let mut killed = Vec::new();
        for slot in self.tasks.borrow_mut().iter_mut() {
            if slot.process == process && slot.waker.take().is_some() {
                killed.extend(slot.future.take());
            }
        }
        let current = shared.replace_current(process);
        drop(killed);
        shared.replace_current(current);
    }

    /// The number of tasks of each process that have not ended.
    pub(crate) fn alive(&self) -> Vec<ProcessId> {
        let tasks = self.tasks.borrow();
        let alive = tasks.iter().filter(|slot| slot.waker.is_some());
        alive.map(|slot| slot.process).collect()
    }

    /// Drops all tasks.
    pub(crate) fn clear(&self) {
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        self.ready.borrow_mut().clear();
        for slot in tasks {
            // A destructor may fail a second time after a failure.
            let _failed = catch_unwind(AssertUnwindSafe(|| drop(slot)));
        }
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor")
            .field("steps", &self.steps.get())
            .finish_non_exhaustive()
    }
}
