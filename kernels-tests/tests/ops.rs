//! ad hoc
use curvkit::data::{Dataset, Targets};
use curvkit::gpu::{Gpu, GpuOptions};
use curvkit::net::{Loss, Model, Network};
use curvkit::operators::Problem;
use kernels_tests::cases::{assert_close, random};
use kernels_tests::reference;

#[test]
fn ops() {
    let gpu = Gpu::new(&GpuOptions::from_env()).unwrap();
    let models: &[(&str, &str)] = &[
        ("conv", "input = [2,5,7]\n[[layers]]\ntype='conv2d'\nout_channels=3\nkernel_size=3\nstride=2\npadding=1\n[[layers]]\ntype='tanh'\n[[layers]]\ntype='conv2d'\nout_channels=9\nkernel_size=1\nbias=false\n[[layers]]\ntype='gelu'\n[[layers]]\ntype='flatten'\n[[layers]]\ntype='linear'\nout_features=3"),
        ("pools", "input = [2,8,9]\n[[layers]]\ntype='conv2d'\nout_channels=3\nkernel_size=5\npadding=2\n[[layers]]\ntype='max_pool2d'\nkernel_size=3\nstride=2\n[[layers]]\ntype='tanh'\n[[layers]]\ntype='avg_pool2d'\nkernel_size=2\nstride=1\n[[layers]]\ntype='conv2d'\nout_channels=4\nkernel_size=2\n[[layers]]\ntype='tanh'\n[[layers]]\ntype='adaptive_avg_pool2d'\noutput_size=2\n[[layers]]\ntype='flatten'\n[[layers]]\ntype='linear'\nout_features=3"),
        ("res", "input = [5]\n[[layers]]\ntype='linear'\nout_features=6\n[[layers]]\ntype='residual'\n[[layers.body]]\ntype='scalar_bias'\n[[layers.body]]\ntype='linear'\nout_features=6\n[[layers.body]]\ntype='tanh'\n[[layers.body]]\ntype='scalar_scale'\n[[layers]]\ntype='layer_norm'\n[[layers]]\ntype='residual'\n[[layers.body]]\ntype='linear'\nout_features=3\n[[layers.shortcut]]\ntype='linear'\nout_features=3\nbias=false"),
        ("fixup", "input = [2,5,7]\n[[layers]]\ntype='scalar_bias'\n[[layers]]\ntype='residual'\n[[layers.body]]\ntype='conv2d'\nout_channels=6\nkernel_size=3\nstride=2\npadding=1\nbias=false\n[[layers.body]]\ntype='tanh'\n[[layers.body]]\ntype='scalar_scale'\n[[layers.shortcut]]\ntype='tanh'\n[[layers.shortcut]]\ntype='avg_pool2d'\nkernel_size=1\nstride=2\n[[layers.shortcut]]\ntype='pad_channels'\nchannels=6\n[[layers]]\ntype='tanh'\n[[layers]]\ntype='adaptive_avg_pool2d'\noutput_size=1\n[[layers]]\ntype='flatten'\n[[layers]]\ntype='scalar_bias'\n[[layers]]\ntype='linear'\nout_features=3"),
        ("tr", "tokens = 5\n[[layers]]\ntype='embedding'\nnum_embeddings=7\nembedding_dim=4\n[[layers]]\ntype='positional_encoding'\nkind='sinusoidal'\n[[layers]]\ntype='transformer_encoder_layer'\nnum_heads=2\ndim_feedforward=6\nactivation='relu'\n[[layers]]\ntype='mean_pool'\n[[layers]]\ntype='linear'\nout_features=2"),
        ("tr2", "tokens = 5\n[[layers]]\ntype='embedding'\nnum_embeddings=7\nembedding_dim=6\n[[layers]]\ntype='positional_encoding'\nkind='learned'\n[[layers]]\ntype='transformer_encoder_layer'\nnum_heads=3\ndim_feedforward=6\nactivation='gelu'\nnorm_first=true\n[[layers]]\ntype='layer_norm'\n[[layers]]\ntype='mean_pool'\n[[layers]]\ntype='linear'\nout_features=2"),
    ];
    for (name, text) in models {
        for n in [1, 3] {
            let model = Model::parse(text).unwrap();
            let network = Network::new(&model).unwrap();
            let theta: Vec<f32> = random(1, network.dim());
            let outputs = network.outputs();
            let (inputs, shape) = match model.tokens {
                Some(t) => {
                    let mut x = Vec::new();
                    for s in 0..n {
                        x.extend((0..t).map(|i| ((s * 3 + i * 2) % 7) as f32));
                        let len = if s == 1 { 1 } else { t - s % 2 };
                        x.extend((0..t).map(|i| if i < len { 1.0 } else { 0.0f32 }));
                    }
                    (x, vec![2, t])
                }
                None => (random(2, n * network.input_len()), model.input.clone()),
            };
            let data = Dataset::new(inputs, shape, Targets::Classes((0..n as u32).map(|i| i % outputs as u32).collect())).unwrap();
            let loss = Loss::CrossEntropy;
            let reference = reference::Problem::new(&model, loss, &theta, &data);
            let problem = Problem::new(&gpu, &network, &theta, &data, loss).unwrap();
            let all = network.all();
            let scale = 1e-1;
            assert_close(&format!("loss {name} {n}"), &[problem.loss().unwrap().loss], &[reference.loss()], 1e-5, scale);
            assert_close(&format!("gradient {name} {n}"), &problem.gradient(&all).unwrap(), &reference.gradient(), 1e-5, scale);
            let mut rows = Vec::new();
            problem.per_sample_gradients(&all, |r| { rows.extend_from_slice(r); Ok(()) }).unwrap();
            assert_close(&format!("per-sample {name} {n}"), &rows, &reference.per_sample_gradient(), 1e-5, scale);
            for k in [1, 3] {
                let v = random(9, k * network.dim());
                assert_close(&format!("hvp {name} {n} {k}"), &problem.hvp(&all, &v).unwrap(), &reference.hvp(&v), 5e-5, scale);
                assert_close(&format!("ggnvp {name} {n} {k}"), &problem.ggnvp(&all, &v).unwrap(), &reference.ggnvp(&v), 5e-5, scale);
                assert_close(&format!("noise {name} {n} {k}"), &problem.noise_covariance_vp(&all, &v).unwrap(), &reference.noise_covariance_vp(&v), 5e-5, scale);
                assert_close(&format!("third {name} {n} {k}"), &problem.third(&all, &v).unwrap(), &reference.third(&v), 2e-4, scale);
            }
            eprintln!("{name} {n} ok");
        }
    }
}
