"""``lamina memories browse``: a bank's pages in the browser of this machine."""

from __future__ import annotations

import click


@click.command("browse", epilog="Example: lamina memories browse model.bank")
@click.argument("bank")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="A free one by default.")
def command(bank: str, port: int) -> None:
    """Serve a bank's pages to this machine's browser.

    Overview, layers, neurons and search, at 127.0.0.1 only, for whoever has the address that is
    printed. Ctrl-C ends it.
    """
    from lamina import memories
    from lamina.core.errors import DataError
    from lamina.memories.browser import Browser

    with memories.open(bank) as opened:
        try:
            browser = Browser(opened, port)
        except OSError as error:
            raise DataError(
                f"memories browse: expected a free port, got {port}: {error.strerror}. Choose "
                "another, or leave --port out."
            ) from error
        click.echo(browser.url)
        click.echo("Ctrl-C ends it.", err=True)
        try:
            browser.serve()
        except KeyboardInterrupt:
            click.echo("", err=True)
        finally:
            browser.finish()
