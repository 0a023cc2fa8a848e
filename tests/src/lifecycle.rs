//! Stopping, pausing and restarting the broker of a scenario that has it to itself.

use crate::{
    context::Ctx,
    harness::{Failure, Outcome},
    operator::Operator,
};

impl Ctx {
    /// Stops the broker in order and starts it again, as `rabbitmqctl stop_app` and `start_app` do.
    ///
    /// # Errors
    /// As [`Node::ctl`](crate::rabbitmq::Node::ctl).
    pub async fn restart_broker(&self) -> Outcome {
        self.stop_broker().await?;
        self.start_broker().await
    }

    /// Stops the broker in order: its connections are closed. Its process goes on.
    ///
    /// # Errors
    /// As [`Node::ctl`](crate::rabbitmq::Node::ctl).
    pub async fn stop_broker(&self) -> Outcome {
        match self.operator() {
            Operator::RabbitMq(node) => self.ctl(node, &["stop_app"]).await.map(drop),
            Operator::Embedded(embedded) => {
                embedded.broker().stop();
                Ok(())
            }
        }
    }

    /// Starts a broker that was stopped.
    ///
    /// # Errors
    /// As [`Node::ctl`](crate::rabbitmq::Node::ctl).
    pub async fn start_broker(&self) -> Outcome {
        match self.operator() {
            Operator::RabbitMq(node) => self.ctl(node, &["start_app"]).await.map(drop),
            Operator::Embedded(embedded) => {
                embedded.broker().start();
                Ok(())
            }
        }
    }

    /// Lets the broker stand still (`SIGSTOP`): its connections stay open, and are not served.
    ///
    /// # Errors
    /// When the broker does not run.
    pub fn pause_broker(&self) -> Result<(), Failure> {
        match self.operator() {
            Operator::RabbitMq(node) => node.pause()?,
            Operator::Embedded(embedded) => embedded.broker().pause(),
        }
        Ok(())
    }

    /// Lets a paused broker go on.
    ///
    /// # Errors
    /// When the broker does not run.
    pub fn resume_broker(&self) -> Result<(), Failure> {
        match self.operator() {
            Operator::RabbitMq(node) => node.resume()?,
            Operator::Embedded(embedded) => embedded.broker().resume(),
        }
        Ok(())
    }
}
