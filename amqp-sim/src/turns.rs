//! The turns of a simulation: a task, or the time to the next event; and what ends it.

use std::{any::Any, collections::BTreeMap, time::Duration};

use amqp_driver::core::Instant;

use crate::{
    actions::Action,
    executor::{Turn, Unwoken},
    panics,
    sim::Sim,
    world::ProcessId,
};

/// The delay before a service that has ended is started again.
const PAUSE: Duration = Duration::from_secs(1);

impl Sim {
    /// Lets one task run, or the time pass to the next event, which is not after `end`. Returns
    /// `false` if there is none.
    pub(crate) fn turn(&self, end: Option<Instant>) -> bool {
        if self.0.executor.steps() >= self.0.bounds.steps {
            self.fail(&format!(
                "it is still running after {} steps",
                self.0.bounds.steps
            ));
        }
        match self.0.executor.turn(&self.0.shared) {
            Turn::Ran => {
                self.handle_ends();
                true
            }
            Turn::Panicked(process, payload) => self.fail_by_panic(process, &*payload),
            Turn::Idle => {
                self.check_always();
                self.check_wakeups();
                self.pass(end)
            }
        }
    }

    /// Lets the time pass to the next event.
    fn pass(&self, end: Option<Instant>) -> bool {
        let shared = &self.0.shared;
        let alarm = shared.with(|world, _| world.alarms.next());
        let action = self
            .0
            .actions
            .borrow()
            .first_key_value()
            .map(|((at, _), _)| *at);
        let next = alarm.into_iter().chain(action).min();
        let Some(next) = next.filter(|next| end.is_none_or(|end| *next <= end)) else {
            return false;
        };
        let next = next.max(shared.now());
        if next > Instant::from_origin(self.0.bounds.time) {
            self.fail(&format!("it has not ended after {:?}", self.0.bounds.time));
        }
        shared.set_now(next);
        shared.with(|world, later| world.alarms.go_off(next, later));
        loop {
            let due = {
                let mut actions = self.0.actions.borrow_mut();
                let first = actions.first_entry();
                first.filter(|it| it.key().0 <= next).map(|it| it.remove())
            };
            match due {
                Some(action) => self.act(action),
                None => return true,
            }
        }
    }

    fn handle_ends(&self) {
        let ends = std::mem::take(&mut *self.0.ends.borrow_mut());
        for (process, failure) in ends {
            let name = self.name_of(process);
            let is_service = self.0.services.borrow().contains_key(&process);
            self.0.shared.note(|_| match &failure {
                Some(failure) => format!("{name} has failed: {failure}"),
                None => format!("{name} has ended"),
            });
            if is_service {
                self.0.executor.kill(&self.0.shared, process);
                let at = self.instant() + PAUSE;
                self.schedule(at, Action::StartService(process));
                continue;
            }
            if let Some(failure) = failure {
                self.fail(&format!("{name} has failed: {failure}"));
            }
            let mut programs = self.0.programs.borrow_mut();
            if let Some(at) = programs.iter().position(|it| *it == process) {
                programs.remove(at);
            }
        }
    }

    /// Removes a program that is killed.
    pub(crate) fn forget_program(&self, process: ProcessId) {
        self.0.programs.borrow_mut().retain(|it| *it != process);
    }

    fn check_always(&self) {
        let mut checks = std::mem::take(&mut *self.0.checks.borrow_mut());
        for (name, check) in &mut checks {
            if let Err(error) = check() {
                self.fail(&format!("{name}: {error}"));
            }
        }
        self.0.checks.borrow_mut().append(&mut checks);
    }

    /// Now and then, polls the tasks that were not woken: one that makes progress by it was to be
    /// woken.
    fn check_wakeups(&self) {
        let (rests, every) = (self.0.rests.get() + 1, self.0.bounds.wakeups);
        self.0.rests.set(rests);
        // Not at the same points of all seeds.
        if every == 0 || !(rests + self.0.seed).is_multiple_of(every) {
            return;
        }
        match self.0.executor.poll_unwoken(&self.0.shared) {
            Unwoken::Rest => {}
            Unwoken::Progress(process) => {
                let name = self.name_of(process);
                self.fail(&format!("{name} was not woken, and had work"));
            }
            Unwoken::Panicked(process, payload) => self.fail_by_panic(process, &*payload),
        }
    }

    fn fail_by_panic(&self, process: ProcessId, payload: &(dyn Any + Send)) -> ! {
        let (name, message) = (self.name_of(process), panics::message(payload));
        self.fail(&format!("{name} has panicked: {message}"))
    }

    fn name_of(&self, process: ProcessId) -> String {
        self.0
            .shared
            .with(|world, _| world.process_name(process).to_owned())
    }

    /// Ends the simulation with a failure.
    pub(crate) fn fail(&self, reason: &str) -> ! {
        let mut waiting = BTreeMap::<String, usize>::new();
        for process in self.0.executor.alive() {
            *waiting.entry(self.name_of(process)).or_default() += 1;
        }
        let waiting: Vec<String> = waiting
            .into_iter()
            .map(|(name, count)| format!("{name} ({count})"))
            .collect();
        let (now, waiting) = (self.now().as_secs_f64(), waiting.join(", "));
        panics::fail(format!(
            "{reason}\n    after {now:.6} s; tasks that have not ended: {waiting}"
        ))
    }
}
