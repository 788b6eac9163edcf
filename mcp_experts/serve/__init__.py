"""The experts over the Model Context Protocol: tools, resources, a prompt. Imports no torch, no Hydra."""
