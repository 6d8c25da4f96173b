//! conntrack-actioner: see the crate's library for the line from a webhook to the kernel.

use conntrack_actioner::admin_client::Client;
use conntrack_actioner::check_policy::check_policy;
use conntrack_actioner::cli::{Cli, Command, Socket};
use conntrack_actioner::command::{ban, bans, explain, panic, past, pause, say, status};
use conntrack_actioner::{create_sets, run, selftest, teardown};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::read();
    match cli.command {
        None => start(&cli.run),
        Some(Command::Run(flags)) => start(&flags),
        Some(Command::CheckPolicy { file }) => {
            check_policy(&file, &mut std::io::stdout(), &mut std::io::stderr())
        }
        Some(Command::Bans(flags)) => say(bans::bans(&client(&flags.socket), flags.json)).into(),
        Some(Command::Ban(flags)) => {
            say(ban::ban(&client(&flags.socket), flags.target, flags.lasts, &flags.reason)).into()
        }
        Some(Command::Unban(flags)) => say(ban::unban(&client(&flags.socket), flags.target)).into(),
        Some(Command::Explain(flags)) => {
            let client = client(&flags.asking.socket);
            say(explain::explain(&client, flags.address, flags.storage.as_deref(), flags.asking.json)).into()
        }
        Some(Command::Status(flags)) => say(status::status(&client(&flags.socket), flags.json)).into(),
        Some(Command::Pause(flags)) => say(pause::pause(&client(&flags.socket), flags.lasts)).into(),
        Some(Command::Resume(flags)) => say(panic::resume(&flags)).into(),
        Some(Command::Panic(flags)) => panic::panic(&flags).say().into(),
        Some(Command::Replay(flags)) => say(past::replayed(&flags)).into(),
        Some(Command::Report(flags)) => say(past::report(&flags)).into(),
        Some(Command::Manual(manual)) => match manual.run(Cli::shown()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error.to_string()),
        },
        Some(Command::Selftest(flags)) => {
            selftest::selftest(flags.admin_socket.parent(), flags.json).say().into()
        }
        Some(Command::Teardown(flags)) => done(teardown::teardown(&flags)),
        Some(Command::CreateSets(flags)) => done(create_sets::create_sets(&flags)),
    }
}

fn done(done: Result<String, String>) -> ExitCode {
    match done {
        Ok(done) => {
            println!("{done}");
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

fn client(socket: &Socket) -> Client {
    Client::new(&socket.admin_socket)
}

fn start(flags: &conntrack_actioner::cli::Run) -> ExitCode {
    flags.log.init();
    match run::run(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &str) -> ExitCode {
    eprintln!("conntrack-actioner: {error}");
    ExitCode::FAILURE
}
