"""`reelmesh optimize --report`: one page over all that is published in the model repositories."""

from optimize.page.collect import collect
from optimize.page.write import Page, page, write_page

__all__ = ["Page", "collect", "page", "write_page"]
