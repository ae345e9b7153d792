"""Python client, synchronous and asyncio, and the command line."""

from switchyard.clients.admin import AdminClient
from switchyard.clients.answers import Answer, Choice, FinishReason, ServedAdapter, ServedBy, Timing, Usage
from switchyard.clients.async_registry import AsyncRegistryClient
from switchyard.clients.channel import ChannelOptions
from switchyard.clients.errors import ClientError, Fault
from switchyard.clients.inference import AsyncInferenceClient, InferenceClient
from switchyard.clients.logprobs import TokenLogprob, TopLogprob
from switchyard.clients.registry import RegistryClient
from switchyard.clients.retry import RetryPolicy
from switchyard.clients.streams import AnswerStream, AsyncAnswerStream

__all__ = [
    "AdminClient",
    "Answer",
    "AnswerStream",
    "AsyncAnswerStream",
    "AsyncInferenceClient",
    "AsyncRegistryClient",
    "ChannelOptions",
    "Choice",
    "ClientError",
    "Fault",
    "FinishReason",
    "InferenceClient",
    "RegistryClient",
    "RetryPolicy",
    "ServedAdapter",
    "ServedBy",
    "Timing",
    "TokenLogprob",
    "TopLogprob",
    "Usage",
]
