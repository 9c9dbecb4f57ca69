"""Questions about pictures, many at once: ``python multimodal.py FOLDER_OF_A_QWEN3_VL_MODEL PICTURE...``."""

import asyncio
import sys

from tidegate import AsyncMultimodalProcessor, AsyncMultimodalRequest, AsyncMultimodalResult


def told(result: AsyncMultimodalResult) -> None:
    print(f"{result.metadata['file']}: {result.text if result.is_ok else result.error} ({result.processing_time:.2f} s)")


async def main(model: str, pictures: list[str]) -> None:
    async with AsyncMultimodalProcessor(model, generation={"max_tokens": 32, "temperature": 0.0}) as processor:
        requests = [
            AsyncMultimodalRequest("Describe this image", picture, metadata={"file": picture}, callback=told)
            for picture in pictures
        ]
        results = await processor.process_batch(requests)
        print(sum(result.is_ok for result in results), "of", len(results), "answered")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
