"""`fullsendd init`: make a store, its key and certificate, and receiver.toml."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fullsend_protocol.shared.exit_codes import Exit

if TYPE_CHECKING:
    import argparse

    from fullsend_cli.running import Commands


def add(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the parser of the command."""
    sub = commands.add_parser("init", help="make a store, its key and certificate, and receiver.toml")
    sub.add_argument(
        "--store",
        default="/var/lib/fullsend",
        metavar="DIR",
        help="or s3://BUCKET/PREFIX, which needs boto3; default: /var/lib/fullsend",
    )
    sub.add_argument("--listen", default=":7433", metavar="HOST:PORT", help="default: port 7433 on all addresses")
    sub.add_argument(
        "--advertise",
        metavar="HOST:PORT",
        action="append",
        default=[],
        help="the address in invitations; default: this host's name. Once for each daemon that serves this store",
    )
    sub.add_argument(
        "--user", metavar="NAME", help="the user that is to own the store; default: the user who runs this"
    )
    sub.add_argument("--adopt", action="store_true", help="take over an existing store")
    bucket = sub.add_argument_group("for a store in a bucket")
    bucket.add_argument("--endpoint", metavar="URL", help="of the object store; default: AWS")
    bucket.add_argument("--region", help="of the bucket; default: as the environment says")
    bucket.add_argument(
        "--credentials-file", type=Path, metavar="FILE", help="as AWS_SHARED_CREDENTIALS_FILE; default: the environment"
    )
    bucket.add_argument("--ca-file", type=Path, metavar="FILE", help="the issuers of the endpoint's certificate (PEM)")
    bucket.add_argument(
        "--home", type=Path, metavar="DIR", help="for this host's key, locks and events; default: /var/lib/fullsend"
    )
    bucket.add_argument(
        "--new-key",
        action="store_true",
        help="with --adopt, if no host has the store's key any more: make a key; each sender must join again",
    )
    sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Make the store. Returns: the exit code. Raises: UsageError, and as setup.init."""
    from fullsend_protocol.shared.errors import UsageError
    from fullsend_receiver.access import config, setup
    from fullsend_receiver.cli.results import print_made

    place = config.store_place(options.store)
    paths = {key: getattr(options, key) for key in ("home", "credentials_file", "ca_file")}
    said = {"endpoint": options.endpoint, "region": options.region}
    said |= {key: path if path is None else path.absolute() for key, path in paths.items()}
    given = {key: value for key, value in said.items() if value is not None}
    if isinstance(place, Path) and (given or options.new_key):
        named = next(iter(given), "new_key").replace("_", "-")
        msg = f"--{named}: is for a store in a bucket: --store s3://BUCKET/PREFIX"
        raise UsageError(msg)
    if options.new_key and not options.adopt:
        msg = "--new-key: is for an existing store: add --adopt, or leave it out: a new store gets a key"
        raise UsageError(msg)
    plan = setup.InitOptions(
        config=config.config_file(options.config),
        store=place,
        listen=options.listen,
        advertise=options.advertise,
        user=options.user,
        adopt=options.adopt,
        new_key=options.new_key,
        bucket=config.BucketSettings(**given),
    )
    fingerprint = setup.init(plan)
    shown = place if not isinstance(place, Path) else place.absolute()
    print_made(shown, plan.config, fingerprint, new_key=plan.new_key)
    return Exit.OK
