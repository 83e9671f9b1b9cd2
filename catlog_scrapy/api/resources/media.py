"""Images and files that loads have kept, by the links that records have."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi import Path as PathParameter
from fastapi.staticfiles import StaticFiles
from scrapy.settings import BaseSettings

from catlog_scrapy.api.auth.callers import Access
from catlog_scrapy.api.problems import problem_responses


def media(access: Access, settings: BaseSettings) -> APIRouter:
    """`/media/...`, where they are kept in a folder; another store serves them itself."""
    router = APIRouter()
    folders = {
        str(settings.get(name) or Path(settings["CATLOG_HOME"], "media"))
        for name in ("IMAGES_STORE", "FILES_STORE")
    }
    stores = [
        StaticFiles(directory=folder, check_dir=False)
        for folder in sorted(folders)
        if "://" not in folder
    ]
    if not stores:
        return router

    @router.get(
        "/media/{path:path}",
        tags=["resources"],
        summary="An image or a file",
        dependencies=[Depends(access.permitted("media", "read"))],
        response_class=Response,
        responses={
            200: {"description": "It.", "content": {"*/*": {}}},
            **problem_responses(401, 403, 404, 422),
        },
    )
    async def kept(
        request: Request,
        path: Annotated[str, PathParameter(examples=["full/0a4d55a8d778e5022fab701977c5d840.png"])],
    ) -> Response:
        scope = {**request.scope, "method": "GET"}
        for store in stores[:-1]:
            if store.lookup_path(path)[1]:
                return await store.get_response(path, scope)
        return await stores[-1].get_response(path, scope)

    return router
