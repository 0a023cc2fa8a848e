mod allocator;
mod cases;
mod clock;
mod instructions;
mod load;
mod machine;
mod options;
mod peer_amqprs;
mod peer_lapin;
mod raw;
mod sink;
mod stats;
mod wire;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

fn main() -> Result<()> {
    match options::parse()? {
        options::Task::Help => print!("{}", options::HELP),
        options::Task::Serve => sink::serve()?,
        options::Task::Drive(d) => d.run()?,
        options::Task::Measure(o) => {
            let sink = sink::Sink::start()?;
            for c in cases::CASES {
                if !o.wants(c.name) { continue }
                for count in [20_000, 200_000] {
                let s = (c.run)(sink.port(), count)?;
                println!("{:50} {:12.0}/s {:8.1} ns {:?}", c.name, s.rate(), s.nanos(), s.worked_nanos());
                }
            }
            println!("{:?}", machine::allocations()?);
            println!("{:?}", machine::memory()?);
        }
    }
    Ok(())
}
