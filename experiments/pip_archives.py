"""Downloads pinned archives with pip's own index, certificates and log-in.

    python -m experiments.pip_archives PACKAGE VERSION FILE TARGET

`pip download` would build an archive's metadata, which runs its code; this only copies
the file. It uses pip from the inside, and runs in a process of its own for that.
"""

import pathlib
import sys


def main(package: str, version: str, filename: str, target: str) -> None:
    """Downloads one file of a package; exits with a message if it is not found."""
    from pip._internal.commands.download import DownloadCommand

    command = DownloadCommand("download", "Downloads archives.")
    options, _ = command.parse_args(["--no-deps", f"{package}=={version}"])
    with command.main_context():
        session = command.get_default_session(options)
        finder = command._build_package_finder(options=options, session=session)
        links = [candidate.link for candidate in finder.find_all_candidates(package)]
        found = [x for x in links if x.filename.casefold() == filename.casefold()]
        if not found:
            raise SystemExit(f"pip's index lists {len(links)} files, not {filename}.")
        # Compressed archives must come as they are stored.
        headers = {"Accept-Encoding": "identity"}
        response = session.get(
            found[0].url_without_fragment, headers=headers, stream=True
        )
        response.raise_for_status()
        with pathlib.Path(target).open("wb") as file:
            for piece in response.iter_content(1 << 20):
                file.write(piece)


if __name__ == "__main__":
    main(*sys.argv[1:])
