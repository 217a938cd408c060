import subprocess
import sys


def test_data_and_models_do_without_ray_and_mlflow():
    """A machine with plain PyTorch can run and time them."""
    code = "import sys, acr_ray.data, acr_ray.models; print({'ray', 'mlflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
