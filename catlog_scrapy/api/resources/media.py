"""Images and files that loads have downloaded, by the paths in their records."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi import Path as PathParameter
from fastapi.staticfiles import StaticFiles
from scrapy.settings import BaseSettings

from catlog_scrapy.api.auth.callers import permission
from catlog_scrapy.api.problems import problem_responses


def media_router(settings: BaseSettings) -> APIRouter:
    """Create the route of `/media`, if the files are in a folder of this machine."""
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
        summary="Get an image or a file",
        dependencies=[Depends(permission("media", "read"))],
        response_class=Response,
        responses={
            200: {"description": "The file's content.", "content": {"*/*": {}}},
            **problem_responses(401, 403, 404, 422),
        },
    )
    async def get_media(
        request: Request,
        path: Annotated[
            str,
            PathParameter(
                description="Path of the file, as its record contains it.",
                examples=["full/0a4d55a8d778e5022fab701977c5d840.png"],
            ),
        ],
    ) -> Response:
        """Return an image or a file that a load has downloaded."""
        scope = {**request.scope, "method": "GET"}
        for store in stores[:-1]:
            if store.lookup_path(path)[1]:
                return await store.get_response(path, scope)
        return await stores[-1].get_response(path, scope)

    return router
