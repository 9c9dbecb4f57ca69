"""Questions about pictures, many at once, in cells that run in a notebook or from top to bottom:
``python multimodal.py FOLDER_OF_A_QWEN3_VL_MODEL PICTURE...``."""

# %% Which model, which pictures: in a notebook, write them here.
import asyncio
import concurrent.futures
import sys

from tidegate import AsyncMultimodalProcessor, AsyncMultimodalRequest, AsyncMultimodalResult

if len(sys.argv) < 3:
    sys.exit(__doc__)
model, *pictures = sys.argv[1:]


# %% What is done with every answer as it comes.
def told(result: AsyncMultimodalResult) -> None:
    print(f"{result.metadata['file']}: {result.text if result.is_ok else result.error} ({result.processing_time:.2f} s)")


# %% All at once, on a thread whose event loop is its own, so that a notebook's is not in the way.
async def describe() -> None:
    async with AsyncMultimodalProcessor(model, generation={"max_tokens": 32, "temperature": 0.0}) as processor:
        requests = [
            AsyncMultimodalRequest("Describe this image", picture, metadata={"file": picture}, callback=told)
            for picture in pictures
        ]
        results = await processor.process_batch(requests)
        print(sum(result.is_ok for result in results), "of", len(results), "answered")


concurrent.futures.ThreadPoolExecutor(1).submit(asyncio.run, describe()).result()
