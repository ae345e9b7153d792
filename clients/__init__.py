"""Python client, synchronous and asyncio, and the command line."""

from switchyard.clients.admin import AdminClient
from switchyard.clients.answers import Answer, Choice, FinishReason, ServedAdapter, ServedBy, Timing, Usage
from switchyard.clients.async_inference import AsyncInferenceClient
from switchyard.clients.async_registry import AsyncRegistryClient
from switchyard.clients.channel import ChannelOptions
from switchyard.clients.chat_answers import ChatAnswer, ChatChoice
from switchyard.clients.conversation import Message, Tool, ToolCall
from switchyard.clients.errors import ClientError, Fault
from switchyard.clients.inference import InferenceClient
from switchyard.clients.logprobs import TokenLogprob, TopLogprob
from switchyard.clients.reading import Rendered, Score, Vectors
from switchyard.clients.registry import RegistryClient
from switchyard.clients.retry import RetryPolicy
from switchyard.clients.streams import AnswerStream, AsyncAnswerStream, AsyncChatStream, ChatStream

__all__ = [
    "AdminClient",
    "Answer",
    "AnswerStream",
    "AsyncAnswerStream",
    "AsyncChatStream",
    "AsyncInferenceClient",
    "AsyncRegistryClient",
    "ChannelOptions",
    "ChatAnswer",
    "ChatChoice",
    "ChatStream",
    "Choice",
    "ClientError",
    "Fault",
    "FinishReason",
    "InferenceClient",
    "Message",
    "RegistryClient",
    "Rendered",
    "RetryPolicy",
    "Score",
    "ServedAdapter",
    "ServedBy",
    "Timing",
    "TokenLogprob",
    "Tool",
    "ToolCall",
    "TopLogprob",
    "Usage",
    "Vectors",
]
