"""The engine `vllm-http`: unmodified vLLM servers, many of them, that come and go while the work is shared out."""
